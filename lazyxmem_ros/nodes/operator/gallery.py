# SPDX-License-Identifier: Apache-2.0
"""The pictures of one tracker, live, past and of requests; in the server's thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from lazyxmem_ros.basics import reason_of
from lazyxmem_ros.images import MAX_PIXELS
from lazyxmem_ros.nodes.diagnostics import Counts
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.errors import RefusedError
from lazyxmem_ros.nodes.operator.past import PastFrames
from lazyxmem_ros.nodes.operator.pictures import (
    EncodedFrame,
    EncodedRequest,
    encode_frame,
    encode_request,
)
from lazyxmem_ros.nodes.operator.requests import Asked
from lazyxmem_ros.nodes.operator.tracker_link import SeenFrame

PAST_PERIOD_S = 0.2
"""Steady time between two frames that are kept although no browser is ready for one."""
UNWATCH_AFTER_S = 5.0
"""Who reloads the page misses no frame."""


class Viewer(Protocol):
    """A browser that looks at the tracker."""

    heat: bool
    is_ready: bool
    """Whether it has drawn what it was sent."""
    shown: int
    """The number of what it was sent last."""

    def show(self, number: int, picture: bytes) -> None:
        """Send a live picture; it is not ready then."""


@dataclass(frozen=True)
class PictureSettings:
    """max_width: pixels of a picture. quality: of JPEG, 1..100. max_rate: live pictures a second.
    past_s, past_bytes: bounds of the frames that are kept. max_pixels: of an image; more are
    refused.
    """

    max_width: int
    quality: int
    max_rate: float
    past_s: float
    past_bytes: int
    max_pixels: int = MAX_PIXELS


class Gallery:
    """Encodes a picture once for all who look, and only while somebody does."""

    def __init__(
        self,
        tracker: str,
        settings: PictureSettings,
        *,
        pool: Executor,
        counts: Counts,
        find: Callable[[str], Asked | None],
        watch: Callable[[bool, bool], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        """tracker: its full node name. pool: encodes. find(key): an open request.

        watch(pictures, entropy): listens to the tracker's images and maps, or no longer.
        refuse(kind, fault): counts and reports a broken message of the tracker's.
        """
        self.past = PastFrames(max_seconds=settings.past_s, max_bytes=settings.past_bytes)
        self.frame_at = -math.inf
        """Steady time of the newest frame."""
        self.fault = ""
        """Why the newest frame that was to be shown cannot be; "" = it can."""
        self._tracker = tracker
        self._settings = settings
        self._pool = pool
        self._counts = counts
        self._find = find
        self._watch = watch
        self._refuse = refuse
        self._viewers: set[Viewer] = set()
        self._frame: SeenFrame | None = None
        self._number = 0
        self._picture: tuple[int, bytes] = (0, b"")
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._unwatch: asyncio.TimerHandle | None = None
        self._forget: asyncio.TimerHandle | None = None
        self._requests: dict[str, EncodedRequest] = {}

    def on_frame(self, frame: SeenFrame) -> None:
        """A new frame."""
        self.frame_at = time.monotonic()
        self._frame = frame
        self._number += 1
        self._wake.set()

    # ---- live pictures

    def add_viewer(self, viewer: Viewer) -> None:
        """Somebody looks, or looks at something else."""
        self._viewers.add(viewer)
        self._cancel_timers()
        if self._pump is None:
            self._pump = asyncio.create_task(self._keep_showing())
        self._watch_frames()
        self.look_again()

    def remove_viewer(self, viewer: Viewer) -> None:
        """Somebody looks no longer."""
        if viewer not in self._viewers:
            return
        self._viewers.remove(viewer)
        if self._viewers:
            self._watch_frames()
            return
        loop = asyncio.get_running_loop()
        self._unwatch = loop.call_later(UNWATCH_AFTER_S, self._stop_watching)
        # Whoever comes back may have begun to show an object on one of them.
        kept_s = max(UNWATCH_AFTER_S, self._settings.past_s)
        self._forget = loop.call_later(kept_s, self.past.clear)

    def look_again(self) -> None:
        """A viewer may have become ready."""
        self._wake.set()

    async def close(self) -> None:
        """Ends what runs."""
        self._cancel_timers()
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump

    def _watch_frames(self) -> None:
        self._watch(True, any(viewer.heat for viewer in self._viewers))

    def _stop_watching(self) -> None:
        self._unwatch = None
        self._watch(False, False)
        self._frame = None
        self.fault = ""

    def _cancel_timers(self) -> None:
        for timer in (self._unwatch, self._forget):
            if timer is not None:
                timer.cancel()
        self._unwatch = self._forget = None

    async def _keep_showing(self) -> None:
        """Encodes the newest frame when somebody is ready for it, once for all, and shows it."""
        encoded_at, kept_at, failed = -math.inf, -math.inf, 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(encoded_at + 1 / self._settings.max_rate - time.monotonic())
            frame, number = self._frame, self._number
            if frame is None or not self._viewers or number == failed:
                continue
            if number != self._picture[0]:
                now = time.monotonic()
                is_wanted = any(viewer.is_ready for viewer in self._viewers)
                if not is_wanted and now - kept_at < PAST_PERIOD_S:
                    continue
                encoded_at = kept_at = now
                try:
                    encoded = await self.in_pool(partial(self._encode, frame))
                except Exception as error:  # noqa: BLE001 - whatever it is, the next is shown
                    failed = number
                    # Of what is not watched any more nobody would hear that it is well again.
                    self.fault = reason_of(error) if self._frame is not None else ""
                    self._refuse("image", reason_of(error))
                    continue
                self.fault = ""
                self._counts.add("frames encoded")
                if self._frame is not None:
                    self.past.add(encoded)
                self._picture = (number, self._frame_message("live", encoded, number))
            number, picture = self._picture
            for viewer in self._viewers:
                if viewer.is_ready and viewer.shown != number:
                    viewer.show(number, picture)

    def _encode(self, frame: SeenFrame) -> EncodedFrame:
        settings = self._settings
        return encode_frame(
            frame,
            max_width=settings.max_width,
            quality=settings.quality,
            max_pixels=settings.max_pixels,
        )

    def _frame_message(self, kind: str, frame: EncodedFrame, number: int = 0) -> bytes:
        return messages.write_message(
            messages.Picture(
                kind=kind,
                number=number,
                tracker=self._tracker,
                stamp=str(frame.stamp),
                request="",
                width=frame.size[1],
                height=frame.size[0],
                full_width=frame.full_size[1],
                full_height=frame.full_size[0],
                ids=list(frame.ids),
                tracked=frame.tracked,
                parts=[len(frame.jpeg), len(frame.runs), len(frame.heat)],
            ),
            frame.jpeg,
            frame.runs,
            frame.heat,
        )

    async def in_pool(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, which must not keep the server's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # ---- single pictures

    def past_frame(self, stamp: str) -> EncodedFrame:
        """The kept frame of a stamp (ns, in digits); raises RefusedError."""
        frame = self.past.find(int(stamp))
        if frame is None:
            raise RefusedError("forgotten_frame")
        return frame

    def past_picture(self, stamp: int, step: int) -> bytes:
        """A frame of the past; raises RefusedError."""
        frame = self.past.near(stamp, step)
        if frame is None:
            raise RefusedError("no_past")
        return self._frame_message("past", frame)

    async def request_picture(self, key: str) -> bytes:
        """What a request is about; raises RefusedError."""
        asked = self._find(key)
        if asked is None:
            raise RefusedError("not_open")
        made = self._requests.get(key)
        if made is None:
            request, settings = asked.content, self._settings
            try:
                made = await self.in_pool(
                    lambda: encode_request(
                        request.image,
                        request.mask,
                        request.uncertainty_map,
                        max_width=settings.max_width,
                        quality=settings.quality,
                        max_pixels=settings.max_pixels,
                    )
                )
            except Exception as error:  # whatever it is, the page waits for it
                self._refuse("correction_request", reason_of(error))
                raise RefusedError("broken_request", reason_of(error)) from error
            self._requests[key] = made
        return messages.write_message(
            messages.Picture(
                kind="request",
                number=0,
                tracker=self._tracker,
                stamp=str(asked.stamp),
                request=key,
                width=made.size[1],
                height=made.size[0],
                full_width=made.size[1],
                full_height=made.size[0],
                ids=[asked.object_id],
                tracked=True,
                parts=[len(made.jpeg), len(made.runs), len(made.heat)],
            ),
            made.jpeg,
            made.runs,
            made.heat,
        )

    def forget_requests(self) -> None:
        """Forgets the pictures of requests that are open no longer."""
        for key in [key for key in self._requests if self._find(key) is None]:
            del self._requests[key]
