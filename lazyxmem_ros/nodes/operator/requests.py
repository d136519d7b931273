# SPDX-License-Identifier: Apache-2.0
"""What one tracker has asked, who is answering, and what became of it. It knows nothing of ROS."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from lazyxmem_ros.basics import SECOND, TAKEN_BACK

HOLD_S = 30.0
"""Who took a request and does nothing with it for so long has given it back."""
MAX_OPEN = 64
"""A tracker that asks for more than this is not listened to: the oldest go."""
MAX_FINISHED = MAX_OPEN
"""All that is open may be answered at once, before the tracker says what became of any of it."""


class Outcome(enum.Enum):
    """What became of a request. The page has texts for each value: in the list of answers, and for
    who was about to answer.
    """

    SENT = "sent"
    """The answer is on its way to the tracker."""
    APPLIED = "applied"
    REFUSED = "refused"
    DISMISSED = "dismissed"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    """The object was removed or paused, or the tracker began anew."""
    ELSEWHERE = "elsewhere"
    """Another program answered."""
    TAKEN_BACK = "taken_back"
    QUIET = "quiet"
    """It came while nothing was to be asked."""


UNANSWERED = (Outcome.EXPIRED, Outcome.WITHDRAWN)
TAKEN = (Outcome.APPLIED, Outcome.ELSEWHERE)
"""The tracker took an answer."""


class NotOpenError(ValueError):
    """An answer to a request that is not open. code: what became of it, an Outcome's value, or
    "unknown"; by: the name of who was first, "" for nobody here.
    """

    def __init__(self, code: str, by: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.by = by


@dataclass(frozen=True)
class Operator:
    """Who answers: a browser's session, and the name that the others see."""

    session: str
    name: str


@dataclass
class Asked:
    """A request. stamp, deadline: nanoseconds by the images' stamps; deadline 0: none.

    content: what it is about (the message), of no account here. holder: who began to answer.
    """

    key: str
    stamp: int
    object_id: int
    label: str
    reason: str
    uncertainty: float
    deadline: int
    content: Any = field(repr=False, default=None)
    holder: Operator | None = None
    held_at: float = 0.0

    def left_s(self, newest: int) -> float | None:
        """Seconds until the deadline for a newest frame of this stamp; None: no deadline."""
        return (self.deadline - newest) / SECOND if self.deadline else None


@dataclass
class Finished:
    """A request that is done, or a correction that nobody asked for. at: steady time.

    key: no other has it. about: the key of a request about its object and frame, which several may
    have. leaving: it is being taken back.
    """

    key: str
    stamp: int
    object_id: int
    label: str
    outcome: Outcome
    by: Operator | None
    at: float
    detail: str = ""
    about: str = ""
    leaving: bool = False

    def __post_init__(self) -> None:
        self.about = self.about or self.key


class RequestDesk:
    """The requests of one tracker."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Asked] = {}
        self._finished: deque[Finished] = deque()
        self._newest = 0
        self._round = 0
        self._noted = 0

    def key(self, stamp: int, object_id: int) -> str:
        """What names a request about an object in the frame of a stamp (ns).

        Where stamps begin anew, as in a recording that is played again, they name others.
        """
        return f"{self._round}|{stamp}|{object_id}"

    @property
    def finished(self) -> list[Finished]:
        """What is done, the newest first."""
        return list(reversed(self._finished))

    def open(self) -> list[Asked]:
        """What waits for an answer, the most urgent first: by time left, then by uncertainty."""
        return sorted(
            self._open.values(), key=lambda a: (a.deadline or 1 << 63, -a.uncertainty, a.stamp)
        )

    def find(self, key: str) -> Asked | None:
        """An open request."""
        return self._open.get(key)

    # ---- what the tracker says

    def add(self, asked: Asked) -> bool:
        """A request has come; False where it is of no use any more, or known.

        One with the key of another that nobody answered is new: a recording is played again, and
        what the tracker keeps for who listens late was of the time before.
        """
        known = self._open.get(asked.key) or self._find_finished(asked.key)
        if isinstance(known, Finished) and known.outcome in UNANSWERED:
            self._finished.remove(known)
        elif known is not None:
            return False
        if asked.deadline and asked.deadline < self._newest:
            return False  # one that was kept for who listens late
        # The tracker asks about an object again only where the request before is done.
        for earlier in [a for a in self._open.values() if a.object_id == asked.object_id]:
            self._finish(earlier, Outcome.WITHDRAWN)
        while len(self._open) >= MAX_OPEN:
            self._finish(next(iter(self._open.values())), Outcome.WITHDRAWN)
        self._open[asked.key] = asked
        return True

    def see(self, newest: int, resting: Collection[int], there: Collection[int]) -> None:
        """The objects of the newest frame (stamp in ns): `resting` are paused, `there` all."""
        begun_anew = newest < self._newest
        self._newest = newest
        self._round += begun_anew
        for asked in list(self._open.values()):
            gone = asked.object_id not in there or asked.object_id in resting
            if (begun_anew and asked.stamp > newest) or (gone and newest > asked.stamp):
                self._finish(asked, Outcome.WITHDRAWN)
            elif asked.deadline and newest > asked.deadline:
                self._finish(asked, Outcome.EXPIRED)

    def corrected(self, key: str, *, applied: bool, detail: str) -> Finished | None:
        """What the tracker made of a person's correction; returns it if it is known."""
        if not applied and detail.startswith(TAKEN_BACK):  # by whomever
            done = self.last_taken(key)
            if done is not None:
                done.outcome, done.detail, done.at = Outcome.TAKEN_BACK, detail, self._clock()
            return done
        # Several may be on their way; the tracker says in their order what became of them.
        sent = (f for f in self._finished if f.about == key and f.outcome is Outcome.SENT)
        done = next(sent, None)
        if done is not None:
            done.outcome = Outcome.APPLIED if applied else Outcome.REFUSED
            done.detail, done.at = detail, self._clock()
            return done
        asked = self._open.get(key)
        if asked is not None and applied:
            return self._finish(asked, Outcome.ELSEWHERE, detail=detail)
        return None

    def last_taken(self, about: str) -> Finished | None:
        """The last answer about an object and frame that the tracker took and has: where one is
        taken back, it is this one.
        """
        taken = (f for f in reversed(self._finished) if f.about == about and f.outcome in TAKEN)
        return next(taken, None)

    def declined_elsewhere(self, key: str, detail: str) -> None:
        """Another program said that there is nothing to correct."""
        asked = self._open.get(key)
        if asked is not None:
            self._finish(asked, Outcome.ELSEWHERE, detail=detail)

    # ---- what people do

    def take(self, key: str, operator: Operator) -> bool:
        """Somebody begins to answer, or goes on; False where somebody else has begun."""
        asked = self._asked(key)
        holder = self._holder(asked)
        if holder is not None and holder.session != operator.session:
            return False
        asked.holder, asked.held_at = operator, self._clock()
        return True

    def give_back(self, key: str, session: str) -> None:
        """Somebody leaves a request to others."""
        asked = self._open.get(key)
        if asked is not None and asked.holder is not None and asked.holder.session == session:
            asked.holder = None

    def holder(self, key: str) -> Operator | None:
        """Who has begun to answer an open request."""
        return self._holder(self._open[key])

    def answer(self, key: str, operator: Operator | None, outcome: Outcome) -> Asked:
        """The first answer to a request ends it. Raises NotOpenError, which says who was first."""
        asked = self._asked(key)
        self._finish(asked, outcome, operator)
        return asked

    def note(self, finished: Finished) -> None:
        """A correction that nobody asked for has been sent; it gets a key of its own."""
        self._noted += 1
        finished.key = f"{finished.about}|{self._noted}"
        self._keep(finished)

    def withdraw(self, object_ids: Iterable[int]) -> None:
        """These objects are gone."""
        for asked in [a for a in self._open.values() if a.object_id in set(object_ids)]:
            self._finish(asked, Outcome.WITHDRAWN)

    # ---- how

    def _asked(self, key: str) -> Asked:
        asked = self._open.get(key)
        if asked is not None:
            return asked
        done = self._find_finished(key)
        if done is None:
            raise NotOpenError("unknown")
        raise NotOpenError(done.outcome.value, done.by.name if done.by is not None else "")

    def _find_finished(self, key: str) -> Finished | None:
        """The last that is done about what a request of this key is about."""
        return next((f for f in reversed(self._finished) if f.about == key), None)

    def _holder(self, asked: Asked) -> Operator | None:
        if asked.holder is not None and self._clock() - asked.held_at > HOLD_S:
            asked.holder = None
        return asked.holder

    def _finish(
        self, asked: Asked, outcome: Outcome, by: Operator | None = None, detail: str = ""
    ) -> Finished:
        del self._open[asked.key]
        done = Finished(
            asked.key, asked.stamp, asked.object_id, asked.label, outcome, by, self._clock(), detail
        )
        self._keep(done)
        return done

    def _keep(self, done: Finished) -> None:
        """Of too many the oldest goes of which nothing is to come any more."""
        self._finished.append(done)
        if len(self._finished) > MAX_FINISHED:
            settled = (each for each in self._finished if each.outcome is not Outcome.SENT)
            self._finished.remove(next(settled, self._finished[0]))
