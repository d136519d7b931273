# SPDX-License-Identifier: Apache-2.0
"""The frames of the recent past, and the curves of the last minute, stay within their bounds."""

from __future__ import annotations

import pytest
from std_msgs.msg import Header

pytest.importorskip("msgspec", reason="needs msgspec (requirements-operator.txt)")

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.operator import curves
from lazyxmem_ros.nodes.operator.curves import Curves
from lazyxmem_ros.nodes.operator.messages import ObjectState
from lazyxmem_ros.nodes.operator.past import PastFrames
from lazyxmem_ros.nodes.operator.pictures import EncodedFrame


def frame(seconds: float, size: int = 100) -> EncodedFrame:
    stamp = round(seconds * SECOND)
    return EncodedFrame(Header(), stamp, bytes(size), b"", (), b"", (1, 1), (1, 1), True)


@pytest.fixture
def past() -> PastFrames:
    return PastFrames(max_seconds=10, max_bytes=1000)


def test_time_bounds_them(past: PastFrames) -> None:
    for second in range(1, 31):
        past.add(frame(second, size=1))
    assert past.oldest is not None
    assert past.newest is not None
    assert (past.oldest.stamp, past.newest.stamp) == (20 * SECOND, 30 * SECOND)


def test_memory_bounds_them_but_the_newest_stays(past: PastFrames) -> None:
    for index in range(50):
        past.add(frame(1 + index / 10))
    assert len(past) == 10
    assert past.nbytes == 1000
    past.add(frame(7, size=5000))
    assert len(past) == 1


def test_a_frame_that_goes_out_again_takes_its_own_place(past: PastFrames) -> None:
    past.add(frame(1, size=10))
    past.add(frame(1, size=30))
    assert (len(past), past.nbytes) == (1, 30)


def test_stamps_that_go_back_begin_anew(past: PastFrames) -> None:
    for second in (5, 6, 2):
        past.add(frame(second))
    assert len(past) == 1
    assert past.nbytes == 100


def test_the_nearest_frame_and_its_neighbours(past: PastFrames) -> None:
    assert past.near(5 * SECOND) is None
    frames = [frame(second, size=1) for second in (1, 2, 4, 8)]
    for each in frames:
        past.add(each)
    for seconds, step, index in (
        (0, 0, 0),
        (2.4, 0, 1),
        (3.6, 0, 2),
        (99, 0, 3),
        (4, -1, 1),
        (4, 1, 3),
        (4, -100, 0),
        (4, 100, 3),
    ):
        assert past.near(round(seconds * SECOND), step) is frames[index]
    assert past.find(4 * SECOND) is frames[2]
    assert past.find(5 * SECOND) is None


def test_curves_keep_a_minute_and_are_told_once() -> None:
    made = Curves()
    objects = [ObjectState(i, "", "tracked", 0.5, None, "#000000") for i in (1, 2)]
    for tick in range(1, 1000):
        made.add(tick * SECOND // 10, objects)
    kept = made.since(0)
    assert kept[-1].at - kept[0].at <= curves.CURVE_S
    assert len(kept) == pytest.approx(2 * curves.CURVE_S / curves.SAMPLE_PERIOD_S, abs=4)
    assert made.since(made.count) == []
    made.add(101 * SECOND, objects)
    assert [sample.object_id for sample in made.since(made.count - 2)] == [1, 2]
    generation = made.generation
    made.add(SECOND, objects)
    assert made.generation == generation + 1
    assert made.count == 2


def test_an_object_does_not_get_the_curve_of_another_one_before_it() -> None:
    """That was removed, or renamed, and left its id; others keep theirs."""
    made = Curves()

    def see(tick: int, **labels: str) -> None:
        objects = [
            ObjectState(int(name[1:]), label, "tracked", 0.5, None, "#000000")
            for name, label in labels.items()
        ]
        made.add(tick * SECOND // 10, objects)

    def lengths() -> list[int]:
        return [sum(each.object_id == i for each in made.since(0)) for i in (1, 2)]

    for tick in range(2, 21, 2):
        see(tick, _1="", _2="")
    assert lengths() == [10, 10]
    generation = made.generation
    see(21, _2="")  # between two samples
    see(22, _1="", _2="")
    assert made.generation > generation
    one, two = lengths()
    assert one <= 1
    assert two >= 10
    for tick in range(24, 42, 2):
        see(tick, _1="", _2="")
    see(42, _1="cup", _2="")
    one, two = lengths()
    assert one == 1
    assert two >= 19
    assert made.since(made.count) == []
