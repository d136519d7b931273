# SPDX-License-Identifier: Apache-2.0
"""Pictures for people are made beside the frames, and only the newest."""

import threading

import pytest

from lazyxmem_ros.nodes.tracker.pictures import NewestOnly

PATIENCE_S = 60.0


def test_what_waits_gives_way_to_newer_work() -> None:
    pictures = NewestOnly("pictures", pytest.fail)
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    made: list[int] = []

    def slow() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        made.append(0)

    pictures.offer(slow)
    assert begun.wait(PATIENCE_S)
    for number in (1, 2):  # returns while the first one is in hand
        pictures.offer(lambda number=number: made.append(number))
    pictures.offer(lambda: (made.append(3), done.set()))
    assert made == []
    go_on.set()
    assert done.wait(PATIENCE_S)
    assert made == [0, 3]
    pictures.close()
    pictures.offer(lambda: made.append(4))
    pictures.close()
    assert made == [0, 3]


def test_a_failure_is_told_and_does_not_end_the_thread() -> None:
    failures: list[BaseException] = []
    told, done = threading.Event(), threading.Event()

    def tell(error: BaseException) -> None:
        failures.append(error)
        told.set()

    pictures = NewestOnly("pictures", tell)
    pictures.offer(lambda: 1 / 0)
    assert told.wait(PATIENCE_S)
    pictures.offer(done.set)
    assert done.wait(PATIENCE_S)
    assert [type(error) for error in failures] == [ZeroDivisionError]
    pictures.close()
