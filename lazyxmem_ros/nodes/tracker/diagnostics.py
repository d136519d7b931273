# SPDX-License-Identifier: Apache-2.0
"""What the tracker node says of itself on /diagnostics."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus

from lazyxmem_ros.nodes.diagnostics import OK, WARN, Counts, Latencies, Rate, Refusals, status
from lazyxmem_ros.nodes.tracker.corrector_client import CorrectionClient

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


@dataclass
class TrackerMeasures:
    """Counters and times that the parts of the node raise.

    latency: from the receipt of an image to its mask. tracking: the network's and the policy's
    share of it. tracked: frames per second.
    """

    counts: Counts = field(default_factory=Counts)
    latency: Latencies = field(default_factory=Latencies)
    tracking: Latencies = field(default_factory=Latencies)
    tracked: Rate = field(default_factory=Rate)


@dataclass(frozen=True)
class Upkeep:
    """What is kept for late corrections: bytes; past frames still to go through for one; frames
    that the limit in bytes has pushed out before their time.
    """

    history_bytes: int = 0
    frames_behind: int = 0
    frames_evicted: int = 0


class TrackerReport:
    """Makes the statuses; notices what is new since the last report."""

    def __init__(
        self, name: str, measures: TrackerMeasures, refusals: Refusals, client: CorrectionClient
    ) -> None:
        """name: the node's."""
        self._name = name
        self._measures = measures
        self._refusals = refusals
        self._client = client
        self._refused_before = 0

    def statuses(
        self,
        *,
        device: str,
        received_rate: float,
        object_ids: tuple[int, ...],
        open_requests: int,
        images_kept: int,
        upkeep: Upkeep,
    ) -> list[DiagnosticStatus]:
        """One status each for frames, corrections, memory and refusals."""
        return [
            self._frames(device, received_rate, object_ids),
            self._corrections(open_requests),
            self._memory(device, images_kept, upkeep),
            self._refused(),
        ]

    def _frames(
        self, device: str, received_rate: float, object_ids: tuple[int, ...]
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
        }
        return status(f"{self._name}: frames", values, hardware_id=device)

    def _corrections(self, open_requests: int) -> DiagnosticStatus:
        counts, client = self._measures.counts, self._client
        values: dict[str, object] = {
            f"{source} {what}": counts[f"{source} {what}"]
            for source in ("pseudo", "operator")
            for what in ("requested", "applied", "not applied", "declined", "failed")
        }
        values["operator received"] = counts["operator received"]
        values["operator open"] = open_requests
        for what in ("requests", "answered", "failed", "unavailable", "timed_out"):
            values[f"service {what}"] = client.counts[what]
        values["service available"] = client.is_available()
        values["service p50 (ms)"] = client.latencies.milliseconds(50)
        values["service p99 (ms)"] = client.latencies.milliseconds(99)
        level, message = (WARN, client.last_fault) if client.last_fault else (OK, "ok")
        return status(f"{self._name}: corrections", values, level=level, message=message)

    def _memory(self, device: str, images_kept: int, upkeep: Upkeep) -> DiagnosticStatus:
        # Linux gives the peak in KiB, which is what a robot must have room for.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
        values: dict[str, object] = {
            "peak resident memory (MiB)": peak / MEBIBYTE,
            "recent images kept": images_kept,
            "kept for late corrections (MiB)": upkeep.history_bytes / MEBIBYTE,
            "frames to go through again": upkeep.frames_behind,
            "frames forgotten early for want of bytes": upkeep.frames_evicted,
        }
        if device.startswith("cuda"):
            import torch

            values["device memory (MiB)"] = torch.cuda.memory_allocated(device) / MEBIBYTE
        return status(f"{self._name}: memory", values)

    def _refused(self) -> DiagnosticStatus:
        total = self._refusals.total()
        new, self._refused_before = total - self._refused_before, total
        values: dict[str, object] = {"total": total, **self._refusals.snapshot()}
        if new:
            message = f"{new} refused since the last report"
            return status(f"{self._name}: refusals", values, level=WARN, message=message)
        return status(f"{self._name}: refusals", values)
