# SPDX-License-Identifier: Apache-2.0
"""The one place where stamps become nanoseconds and back."""

from __future__ import annotations

import pytest

from lazyxmem_ros.basics import MAX_SECONDS, MAX_STAMP, StampRangeError, stamp_fields, stamp_from


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789, MAX_STAMP])
def test_stamps_go_both_ways(stamp: int) -> None:
    assert stamp_from(*stamp_fields(stamp)) == stamp


@pytest.mark.parametrize(
    ("sec", "nanosec", "fault"),
    [
        (5, 1_000_000_000, "has 1000000000 nanoseconds"),
        (MAX_SECONDS, 2**32 - 1, "has 4294967295 nanoseconds"),
        (-1, 0, "has -1 seconds"),
        (2**31, 0, "1970 to 2038"),
    ],
)
def test_fields_that_are_no_time_are_refused(sec: int, nanosec: int, fault: str) -> None:
    with pytest.raises(StampRangeError, match=fault):
        stamp_from(sec, nanosec)


@pytest.mark.parametrize("stamp", [-1, MAX_STAMP + 1, 2**63, 2**70])
def test_nanoseconds_that_no_message_holds_are_refused(stamp: int) -> None:
    with pytest.raises(StampRangeError, match="cannot hold"):
        stamp_fields(stamp)
