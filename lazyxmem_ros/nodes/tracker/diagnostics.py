# SPDX-License-Identifier: Apache-2.0
"""What the tracker node says of itself on /diagnostics."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticStatus

from lazyxmem_ros.basics import MEBIBYTE, SECOND
from lazyxmem_ros.nodes.correction_client import ServiceMeasures
from lazyxmem_ros.nodes.diagnostics import (
    ERROR,
    OK,
    WARN,
    Counts,
    Latencies,
    Rate,
    Recent,
    Refusals,
    hardware,
    status,
    status_name,
)

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.tracker.snapshots import SnapshotKeeper

KIBIBYTE = 1024
MIN_DROPPED = 5
"""Images: so many must have been dropped before their share of all is worth a warning."""
DROPPED_SHARE = 0.5
"""Of the images received, from which on the tracker counts as too slow for its camera."""


@dataclass
class TrackerMeasures:
    """Counters and times that the parts of the node raise, from any thread.

    refusals: what was refused of what came in. latency: from the receipt of an image to its mask.
    tracking: the network's and the policy's share of it. tracked: frames per second. last_failure:
    what failed last, in words.
    """

    refusals: Refusals
    counts: Counts = field(default_factory=Counts)
    latency: Latencies = field(default_factory=Latencies)
    tracking: Latencies = field(default_factory=Latencies)
    tracked: Rate = field(default_factory=Rate)
    last_failure: str = ""

    def count(self, name: str, amount: int = 1) -> None:
        """Raises a counter of `/diagnostics`."""
        self.counts.add(name, amount)

    def refuse(self, topic: str, kind: str, fault: str) -> None:
        """Counts and reports refused input."""
        self.refusals.refuse(topic, kind, fault)


@dataclass(frozen=True)
class Upkeep:
    """What is kept for late corrections: bytes; past frames still to go through for one; frames
    that the limit in bytes has pushed out before their time; how far back what is kept goes, in
    nanoseconds.
    """

    history_bytes: int = 0
    frames_behind: int = 0
    frames_evicted: int = 0
    correction_reach: int = 0


class TrackerReport:
    """Makes the statuses; notices what is new since the last report."""

    def __init__(self, name: str, measures: TrackerMeasures, service: ServiceMeasures) -> None:
        """name: the node's, with its namespace."""
        self._node = name
        self._measures = measures
        self._recent = Recent(measures.counts)
        self._refusals = measures.refusals
        self._service = service
        self._refused_before = measures.refusals.total()

    def statuses(
        self,
        *,
        device: str,
        received_rate: float,
        object_ids: tuple[int, ...],
        open_requests: int,
        service_available: bool,
        images_kept: int,
        images_reach: int,
        upkeep: Upkeep,
        images_fault: str,
        snapshots: SnapshotKeeper | None,
        records: DiagnosticStatus | None,
    ) -> list[DiagnosticStatus]:
        """One status each for frames, corrections, memory and refusals, and for snapshots and
        records, if any.

        images_reach: how far back the recent images go, nanoseconds.
        images_fault: what is wrong with how images come, in words, or "". records: their own
        status.
        """
        made = [
            self._frames(device, received_rate, object_ids, images_fault),
            self._corrections(open_requests, service_available),
            self._memory(device, images_kept, images_reach, upkeep),
            self._refused(),
        ]
        if snapshots is not None:
            made.append(self._snapshots(snapshots))
        if records is not None:
            made.append(records)
        for each in made:
            each.hardware_id = hardware(device)
        return made

    def _name(self, part: str) -> str:
        return status_name(self._node, part)

    def _frames(
        self, device: str, received_rate: float, object_ids: tuple[int, ...], images_fault: str
    ) -> DiagnosticStatus:
        measures, counts = self._measures, self._measures.counts
        values = {
            "received": counts["received"],
            "tracked": counts["tracked"],
            "dropped": counts["dropped"],
            "failed": counts["failed"],
            "received rate (Hz)": received_rate,
            "tracked rate (Hz)": measures.tracked.hertz(),
            "latency p50 (ms)": measures.latency.milliseconds(50),
            "latency p99 (ms)": measures.latency.milliseconds(99),
            "tracking p50 (ms)": measures.tracking.milliseconds(50),
            "tracking p99 (ms)": measures.tracking.milliseconds(99),
            "objects": ", ".join(map(str, object_ids)) or "none",
            "init masks received": counts["init masks received"],
            "init masks taken": counts["init masks taken"],
        }
        level, message = self._alarm(images_fault)
        return status(self._name("frames"), values, level=level, message=message)

    def _alarm(self, images_fault: str) -> tuple[bytes, str]:
        """What is worst about the newest frames (see `Recent`): a level and its reason."""
        recent = self._recent.look()
        failed, dropped = recent.get("failed", 0), recent.get("dropped", 0)
        received = recent.get("received", 0)
        window = f"in the last {self._recent.span_s:.0f} s"
        if failed:
            return ERROR, f"{failed} failed {window}: {self._measures.last_failure}"
        if images_fault:
            return WARN, images_fault
        if dropped >= max(MIN_DROPPED, DROPPED_SHARE * received):
            busy = self._measures.tracking.milliseconds(50)
            why = f": tracking a frame takes {busy:.0f} ms" if math.isfinite(busy) else ""
            return WARN, f"{dropped} of {received} images dropped {window}{why}"
        return OK, "ok"

    def _snapshots(self, keeper: SnapshotKeeper) -> DiagnosticStatus:
        values: dict[str, object] = {
            "path": keeper.path,
            "saved": keeper.saved,
            "last copy (ms)": keeper.last_copy_seconds * 1e3,
        }
        level, message = (ERROR, keeper.last_fault) if keeper.last_fault else (OK, "ok")
        return status(self._name("snapshots"), values, level=level, message=message)

    def _corrections(self, open_requests: int, available: bool) -> DiagnosticStatus:
        counts, service = self._measures.counts, self._service
        values: dict[str, object] = {
            f"{source} {what}": counts[f"{source} {what}"]
            for source in ("pseudo", "operator")
            for what in ("requested", "applied", "not applied", "declined", "failed")
        }
        values["operator received"] = counts["operator received"]
        values["operator open"] = open_requests
        for what in ("requests", "answered", "failed", "unavailable", "timed_out", "refused"):
            values[f"service {what}"] = service.counts[what]
        values["service available"] = available
        values["service p50 (ms)"] = service.latencies.milliseconds(50)
        values["service p99 (ms)"] = service.latencies.milliseconds(99)
        level, message = (WARN, service.last_fault) if service.last_fault else (OK, "ok")
        return status(self._name("corrections"), values, level=level, message=message)

    def _memory(
        self, device: str, images_kept: int, images_reach: int, upkeep: Upkeep
    ) -> DiagnosticStatus:
        # Linux gives the peak in KiB, which is what a robot must have room for.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
        values: dict[str, object] = {
            "peak resident memory (MiB)": peak / MEBIBYTE,
            "recent images kept": images_kept,
            "masks and clicks may name images of the last (s)": images_reach / SECOND,
            "kept for late corrections (MiB)": upkeep.history_bytes / MEBIBYTE,
            "late corrections reach back (s)": upkeep.correction_reach / SECOND,
            "frames to go through again": upkeep.frames_behind,
            "frames forgotten early for want of bytes": upkeep.frames_evicted,
        }
        if device.startswith("cuda"):
            import torch

            values["device memory (MiB)"] = torch.cuda.memory_allocated(device) / MEBIBYTE
        return status(self._name("memory"), values)

    def _refused(self) -> DiagnosticStatus:
        total = self._refusals.total()
        new, self._refused_before = total - self._refused_before, total
        values: dict[str, object] = {"total": total, **self._refusals.snapshot()}
        if new:
            message = f"{new} refused since the last report"
            return status(self._name("refusals"), values, level=WARN, message=message)
        return status(self._name("refusals"), values)
