# SPDX-License-Identifier: Apache-2.0
"""What the console knows of one tracker; in the server's thread."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor

from lazyxmem_ros import msg
from lazyxmem_ros.basics import MAX_LABEL_LENGTH, StampRangeError, stamp_of
from lazyxmem_ros.images.drawing import object_colour
from lazyxmem_ros.nodes.diagnostics import Counts, Rate
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.curves import Curves
from lazyxmem_ros.nodes.operator.gallery import Gallery, PictureSettings
from lazyxmem_ros.nodes.operator.requests import Asked, Finished, Operator, Outcome, RequestDesk
from lazyxmem_ros.nodes.operator.tracker_link import Presence, TrackerLink

FRESH_S = 3.0
"""Of steady time: frames and tracks that are older are not of now."""
COMPLAINT_S = 5.0
"""Of steady time, that a complaint stays after its end: else nobody could read it."""
STATES = {
    msg.Track.TRACKED: "tracked",
    msg.Track.UNCERTAIN: "uncertain",
    msg.Track.LOST: "lost",
    msg.Track.PAUSED: "paused",
}
QUIET = "an operator asked for quiet"


class TrackerView:
    """One tracker."""

    def __init__(
        self,
        name: str,
        settings: PictureSettings,
        *,
        pool: Executor,
        counts: Counts,
        changed: Callable[[], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        """name: the tracker's full node name. pool: encodes. changed(): the state is another.

        refuse(kind, fault): counts and reports a broken message of the tracker's.
        """
        self.name = name
        self.title = title_of(name)
        self.desk = RequestDesk()
        self.curves = Curves()
        self.objects: list[messages.ObjectState] = []
        """Those of the newest frame."""
        self.link: TrackerLink
        self.gallery = Gallery(
            name,
            settings,
            pool=pool,
            counts=counts,
            find=self.desk.find,
            watch=lambda pictures, entropy: self.link.watch(pictures=pictures, entropy=entropy),
            refuse=refuse,
        )
        self.changed = changed
        self._refuse = refuse
        self._presence = Presence()
        self._complaint = ""
        self._complained_at = -math.inf
        self._newest = 0
        self._tracked_at = -math.inf
        self._rate = Rate()
        self._quiet_until = -math.inf

    # ---- what the tracker says

    def on_presence(self, presence: Presence) -> None:
        """Who is there."""
        if presence != self._presence:
            self._presence = presence
            self.changed()

    def on_complaint(self, text: str) -> None:
        """What the tracker's diagnostics complain about; "": nothing any more."""
        now = time.monotonic()
        if text:
            self._complained_at = now
        elif now - self._complained_at < COMPLAINT_S:
            return
        if text != self._complaint:
            self._complaint = text
            self.changed()

    def on_tracks(self, message: msg.TrackArray) -> None:
        """The objects of the newest frame."""
        try:
            stamp = stamp_of(message.header.stamp)
        except StampRangeError as error:
            self._refuse("tracks", str(error))
            return
        self.objects = [_object_state(track) for track in message.tracks]
        if stamp != self._newest:
            self._rate.add()
        self._newest = stamp
        self._tracked_at = time.monotonic()
        self.curves.add(stamp, self.objects)
        self.desk.see(
            stamp,
            {each.id for each in self.objects if each.state == "paused"},
            {each.id for each in self.objects},
        )
        self.gallery.forget_requests()
        self.changed()

    def on_request(self, message: msg.CorrectionRequest) -> None:
        """Somebody's help is wanted."""
        try:
            stamp, deadline = stamp_of(message.header.stamp), stamp_of(message.deadline)
        except StampRangeError as error:
            self._refuse("correction_request", str(error))
            return
        asked = Asked(
            self.key(stamp, message.id),
            stamp,
            message.id,
            message.label[:MAX_LABEL_LENGTH],
            message.reason,
            message.uncertainty,
            deadline,
            message,
        )
        if self.desk.add(asked) and self.quiet_s > 0:
            self._hush(asked, None)
        self.changed()

    def on_answer(self, message: msg.Correction) -> None:
        """An answer of anybody's; a word alone ends a request, whoever says it."""
        prompt = message.prompt
        if not (prompt.positive or prompt.negative or prompt.has_box or prompt.mask.data):
            with contextlib.suppress(StampRangeError):
                key = self.key(stamp_of(message.header.stamp), message.id)
                self.desk.declined_elsewhere(key, message.message)
                self.changed()

    def on_corrected(self, message: msg.Correction) -> None:
        """What became of a correction."""
        if message.source != "operator":
            return
        with contextlib.suppress(StampRangeError):
            key = self.key(stamp_of(message.header.stamp), message.id)
            self.desk.corrected(key, applied=message.applied, detail=message.message)
            self.changed()

    # ---- what there is to know

    @property
    def quiet_s(self) -> float:
        """Seconds for which nothing is asked."""
        return max(0.0, self._quiet_until - time.monotonic())

    def state(self, session: str) -> messages.TrackerState:
        """All of it, for one browser."""
        now = time.monotonic()
        presence = self._presence
        picture = "waiting"
        if now - max(self.gallery.frame_at, self._tracked_at) < FRESH_S:
            picture = "present"
        elif not presence.camera:
            picture = "absent"
        node = "absent"
        if presence.tracker:
            node = "present" if presence.listening else "inactive"
        oldest, newest = self.gallery.past.oldest, self.gallery.past.newest
        return messages.TrackerState(
            tracker=self.name,
            title=self.title,
            node=node,
            picture=picture,
            fault=self.gallery.fault,
            corrector="present" if presence.corrector else "absent",
            takes_back=presence.takes_back,
            detail=self._complaint if presence.tracker else "",
            newest=str(newest.stamp) if newest is not None else "",
            oldest=str(oldest.stamp) if oldest is not None else "",
            rate=self._rate.hertz(),
            quiet_s=self.quiet_s,
            objects=self.objects,
            requests=[self._request_state(asked, session) for asked in self.desk.open()],
            finished=[_finished_state(each, session, now) for each in self.desk.finished],
        )

    def _request_state(self, asked: Asked, session: str) -> messages.RequestState:
        holder = self.desk.holder(asked.key)
        return messages.RequestState(
            key=asked.key,
            object_id=asked.object_id,
            label=asked.label,
            reason=asked.reason,
            left_s=asked.left_s(max(self._newest, asked.stamp)),
            taken_by="" if holder is None else holder.name,
            mine=holder is not None and holder.session == session,
        )

    def key(self, stamp: int, object_id: int) -> str:
        """What names a request about an object in the frame of a stamp (ns), among all trackers."""
        return f"{self.name}|{self.desk.key(stamp, object_id)}"

    # ---- what people want

    def be_quiet(self, seconds: float, operator: Operator) -> None:
        """Declines everything for a while; 0 ends that."""
        self._quiet_until = time.monotonic() + seconds
        if seconds > 0:
            for asked in self.desk.open():
                self._hush(asked, operator)
        self.changed()

    def _hush(self, asked: Asked, operator: Operator | None) -> None:
        """Nothing is to be asked now."""
        self.desk.answer(asked.key, operator, Outcome.QUIET)
        self.decline(asked, QUIET)

    def decline(self, asked: Asked, why: str) -> None:
        """Tells the tracker that nothing is to be corrected, so that it may ask again later."""
        self.link.answer(
            msg.Correction(header=asked.content.header, id=asked.object_id, message=why)
        )


def title_of(name: str) -> str:
    """What people call a tracker: its namespace, or its own name where it has none."""
    namespace, _, own = name.rpartition("/")
    return namespace.strip("/") or own


def _object_state(track: msg.Track) -> messages.ObjectState:
    red, green, blue = object_colour(track.id)
    iou = float(track.predicted_iou)
    return messages.ObjectState(
        id=track.id,
        label=track.label[:MAX_LABEL_LENGTH],
        state=STATES.get(track.state, "tracked"),
        uncertainty=float(track.uncertainty),
        predicted_iou=None if math.isnan(iou) else iou,
        colour=f"#{red:02x}{green:02x}{blue:02x}",
    )


def _finished_state(done: Finished, session: str, now: float) -> messages.FinishedRequest:
    return messages.FinishedRequest(
        key=done.key,
        object_id=done.object_id,
        label=done.label,
        outcome=done.outcome.value,
        detail=done.detail,
        by="" if done.by is None else done.by.name,
        mine=done.by is not None and done.by.session == session,
        ago_s=now - done.at,
    )
