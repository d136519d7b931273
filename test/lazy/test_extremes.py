# SPDX-License-Identifier: Apache-2.0
"""Every setting of the policy at both ends of its range: frames are tracked, and answers taken."""

from dataclasses import replace
from typing import Any

import pytest
from late_runs import CALIBRATION, FIRST, correction, start, step

from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.settings import settings_of
from lazyxmem_ros.xmem import XMem

ENDS = [
    (entry.name, end)
    for entry in settings_of(LazyConfig)
    for end in (entry.bounds or ([True, False] if isinstance(entry.default, bool) else []))
]


@pytest.mark.parametrize(("name", "end"), ENDS)
def test_both_ends_of_a_setting_work(name: str, end: Any, small_network: XMem) -> None:
    """With requests to a person on every frame, so that all there is has something to do."""
    asking = LazyConfig(operator_entropy=0.0, cooldown_frames=0, correction_bytes=1_000_000)
    lazy = start(small_network, replace(asking, **{name: end}), CALIBRATION)
    for index in range(1, 6):
        result = step(lazy, index)
        assert {track.object_id for track in result.tracks} == {1, 2}
        if index == 4:
            outcome = lazy.apply(correction(index - 1, FIRST))
            assert outcome.applied or outcome.reason
    lazy.close()
