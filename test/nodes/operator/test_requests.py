# SPDX-License-Identifier: Apache-2.0
"""Who answers what, and what became of it."""

from __future__ import annotations

from typing import Any

import pytest

from lazyxmem_ros.basics import SECOND, TAKEN_BACK
from lazyxmem_ros.nodes.operator import requests
from lazyxmem_ros.nodes.operator.requests import (
    Asked,
    Finished,
    NotOpenError,
    Operator,
    Outcome,
    RequestDesk,
)

ANNA, BEN = Operator("a", "Anna"), Operator("b", "Ben")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(clock: Clock) -> RequestDesk:
    made = RequestDesk(clock=clock)
    made.see(10 * SECOND, (), (1, 2, 3))
    return made


def asked(object_id: int = 1, at: float = 10, until: float = 20, **values: Any) -> Asked:
    stamp, deadline = round(at * SECOND), round(until * SECOND)
    values = {"label": "cup", "reason": "", "uncertainty": 1.0, **values}
    return Asked(f"{stamp}|{object_id}", stamp, object_id, deadline=deadline, **values)


def outcomes(desk: RequestDesk) -> dict[str, Outcome]:
    return {done.key: done.outcome for done in desk.finished}


def test_the_most_urgent_is_first(desk: RequestDesk) -> None:
    for request in (
        asked(1, until=30),
        asked(2, until=20, uncertainty=0.5),
        asked(3, until=20, uncertainty=0.9),
    ):
        assert desk.add(request)
    assert [request.object_id for request in desk.open()] == [3, 2, 1]
    assert desk.add(asked(4, until=0))
    assert desk.open()[-1].object_id == 4  # no limit


def test_the_first_answer_counts(desk: RequestDesk) -> None:
    request = asked()
    desk.add(request)
    assert desk.answer(request.key, BEN, Outcome.SENT) is request
    with pytest.raises(NotOpenError) as late:
        desk.answer(request.key, ANNA, Outcome.SENT)
    assert (late.value.code, late.value.by) == ("sent", "Ben")
    desk.corrected(request.key, applied=True, detail="")
    assert outcomes(desk) == {request.key: Outcome.APPLIED}


def test_who_answers_too_late_is_told_what_became_of_the_request(desk: RequestDesk) -> None:
    """Also where the first answer does not hold any more."""
    ours, theirs = asked(1), asked(2)
    for request in (ours, theirs):
        desk.add(request)
    desk.answer(ours.key, BEN, Outcome.SENT)
    for request in (ours, theirs):
        desk.corrected(request.key, applied=True, detail="")
        desk.corrected(request.key, applied=False, detail=TAKEN_BACK)
    told = []
    for key in (ours.key, theirs.key, "none of them"):
        with pytest.raises(NotOpenError) as late:
            desk.answer(key, ANNA, Outcome.SENT)
        told.append((late.value.code, late.value.by))
    assert told == [("taken_back", "Ben"), ("taken_back", ""), ("unknown", "")]


def test_what_the_tracker_refuses_is_told(desk: RequestDesk) -> None:
    request = asked()
    desk.add(request)
    desk.answer(request.key, BEN, Outcome.SENT)
    desk.corrected(request.key, applied=False, detail="too late")
    [done] = desk.finished
    assert (done.outcome, done.detail, done.by) == (Outcome.REFUSED, "too late", BEN)


def test_who_takes_a_request_holds_it_for_a_while(desk: RequestDesk, clock: Clock) -> None:
    request = asked()
    desk.add(request)
    assert desk.take(request.key, ANNA)
    assert not desk.take(request.key, BEN)
    assert desk.holder(request.key) == ANNA
    desk.answer(request.key, BEN, Outcome.SENT)  # who is first, not who began
    other = asked(2)
    desk.add(other)
    desk.take(other.key, ANNA)
    clock.now += requests.HOLD_S / 2
    desk.take(other.key, ANNA)
    clock.now += requests.HOLD_S - 1
    assert desk.holder(other.key) == ANNA
    clock.now += 2
    assert desk.holder(other.key) is None
    assert desk.take(other.key, BEN)
    desk.give_back(other.key, ANNA.session)
    assert desk.holder(other.key) == BEN
    desk.give_back(other.key, BEN.session)
    assert desk.holder(other.key) is None


def test_a_request_expires_by_the_images_time(desk: RequestDesk) -> None:
    request = asked(until=20)
    desk.add(request)
    assert request.left_s(15 * SECOND) == 5
    desk.see(20 * SECOND, (), (1,))
    assert desk.find(request.key)
    desk.see(20 * SECOND + 1, (), (1,))
    assert outcomes(desk) == {request.key: Outcome.EXPIRED}
    with pytest.raises(NotOpenError) as late:
        desk.answer(request.key, ANNA, Outcome.SENT)
    assert late.value.code == "expired"


@pytest.mark.parametrize(
    ("newest", "resting", "there"), [(11, (), (2,)), (11, (1,), (1, 2)), (9, (), (1, 2))]
)
def test_what_is_not_asked_any_more_is_withdrawn(
    desk: RequestDesk, newest: int, resting: tuple[int, ...], there: tuple[int, ...]
) -> None:
    request = asked(1)
    desk.add(request)
    desk.see(newest * SECOND, resting, there)
    assert outcomes(desk) == {request.key: Outcome.WITHDRAWN}


def test_a_recording_that_is_played_again_asks_again(desk: RequestDesk) -> None:
    key = desk.key(10 * SECOND, 1)
    request = asked(1)
    request.key = key
    desk.add(request)
    desk.answer(key, ANNA, Outcome.SENT)
    desk.see(5 * SECOND, (), (1,))
    again = asked(1)
    again.key = desk.key(10 * SECOND, 1)
    assert again.key != key
    assert desk.add(again)


def test_it_is_told_whoever_takes_a_correction_back(desk: RequestDesk) -> None:
    first, second = asked(1), asked(2)
    desk.add(first)
    desk.add(second)
    desk.answer(first.key, ANNA, Outcome.SENT)
    for request in (first, second):  # the second one was answered by another program
        desk.corrected(request.key, applied=True, detail="")
        desk.corrected(request.key, applied=False, detail=f"{TAKEN_BACK}; frames are gone through")
    assert outcomes(desk) == dict.fromkeys((first.key, second.key), Outcome.TAKEN_BACK)


def test_an_answer_on_its_way_is_not_the_one_that_was_taken_back(desk: RequestDesk) -> None:
    request = asked()
    desk.add(request)
    desk.answer(request.key, ANNA, Outcome.SENT)
    desk.corrected(request.key, applied=False, detail=TAKEN_BACK)
    assert outcomes(desk) == {request.key: Outcome.SENT}


def noted(desk: RequestDesk, at: float = 10) -> Finished:
    """Somebody has shown object 1 on a frame, unasked."""
    stamp = round(at * SECOND)
    done = Finished(f"{stamp}|1", stamp, 1, "cup", Outcome.SENT, ANNA, 0.0)
    desk.note(done)
    return done


def test_of_several_answers_about_a_frame_each_has_its_own_outcome(desk: RequestDesk) -> None:
    first, second, third = noted(desk), noted(desk), noted(desk)
    about = first.about
    assert len({first.key, second.key, third.key}) == 3
    desk.corrected(about, applied=True, detail="")
    desk.corrected(about, applied=False, detail="too late")
    desk.corrected(about, applied=True, detail="")
    found = [each.outcome for each in (first, second, third)]
    assert found == [Outcome.APPLIED, Outcome.REFUSED, Outcome.APPLIED]
    for taken_back in (third, first):  # the last one goes, and the one before it holds again
        assert desk.last_taken(about) is taken_back
        desk.corrected(about, applied=False, detail=TAKEN_BACK)
        assert taken_back.outcome is Outcome.TAKEN_BACK
    assert desk.last_taken(about) is None


def test_another_program_may_answer(desk: RequestDesk) -> None:
    first, second, third = asked(1), asked(2), asked(3)
    for request in (first, second, third):
        desk.add(request)
    desk.corrected(first.key, applied=True, detail="")
    desk.corrected(second.key, applied=False, detail="another one may come")
    desk.declined_elsewhere(third.key, "nothing to see")
    assert outcomes(desk) == {first.key: Outcome.ELSEWHERE, third.key: Outcome.ELSEWHERE}
    assert desk.find(second.key)


def test_old_and_known_requests_are_not_taken_up(desk: RequestDesk) -> None:
    """Latched, they come again to who listens late."""
    assert not desk.add(asked(until=9.5))
    request = asked()
    assert desk.add(request)
    assert not desk.add(request)
    desk.answer(request.key, ANNA, Outcome.DISMISSED)
    assert not desk.add(request)


def test_what_nobody_answered_may_be_asked_again(desk: RequestDesk) -> None:
    """What was kept for who listens late was of a recording's last time; now it is played again."""
    assert desk.add(asked(1, at=12))
    desk.see(13 * SECOND, (), (2, 3))
    assert outcomes(desk) == {asked(1, at=12).key: Outcome.WITHDRAWN}
    assert desk.add(asked(1, at=12))
    assert [request.object_id for request in desk.open()] == [1]
    assert outcomes(desk) == {}
    desk.answer(asked(1, at=12).key, ANNA, Outcome.SENT)
    assert not desk.add(asked(1, at=12))


def test_a_flood_of_requests_stays_bounded(desk: RequestDesk) -> None:
    for object_id in range(1, 500):
        desk.add(asked(object_id))
    assert len(desk.open()) == requests.MAX_OPEN
    assert len(desk.finished) == requests.MAX_FINISHED


def test_what_becomes_of_many_answers_at_once_is_known_of_each(desk: RequestDesk) -> None:
    requests_ = [asked(object_id) for object_id in range(1, requests.MAX_OPEN + 1)]
    for request in requests_:
        desk.add(request)
    for request in requests_:
        desk.answer(request.key, ANNA, Outcome.SENT)
    for object_id in range(100, 110):  # these end at once
        desk.add(asked(object_id))
        desk.answer(asked(object_id).key, ANNA, Outcome.DISMISSED)
    for request in requests_:
        done = desk.corrected(request.key, applied=True, detail="")
        assert done is not None
        assert done.key == request.key
    assert set(outcomes(desk).values()) == {Outcome.APPLIED}
    assert not desk.add(requests_[0])
