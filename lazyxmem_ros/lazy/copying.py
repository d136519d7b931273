# SPDX-License-Identifier: Apache-2.0
"""How far apart copies of memory lie, so that the whole horizon fits into `correction_bytes`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.record import FrameRecord


def copy_period(
    config: LazyConfig, records: Sequence[FrameRecord], place: int, *, fork: int
) -> int:
    """Nanoseconds from a copy of memory to the next.

    That is `state_period` where copies so close fit, with a fork beside them, and where no period
    makes the horizon fit. Else, it is the one of the n parts of the horizon with which that takes
    the fewest bytes: the copy before it takes C bytes, each of the n later ones, which share with
    it, D, and the images since it F (1 + 1 / n), with F for those of the horizon alone.

    records: the frames that are kept, oldest first. place: of the last one with a copy. fork: bytes
    of a fork of the tracker.
    """
    copied, usual, horizon = records[place], config.state_period, config.correction_horizon
    assert copied.state is not None
    span = records[-1].stamp - records[0].stamp
    if span == 0 or usual >= horizon:
        return usual
    apart = span / (len(records) - 1)  # copies lie no closer than frames
    images = next(copied.frame.kept()).nbytes * horizon / apart
    first, later = copied.state.whole_nbytes, copied.state.nbytes

    def total(parts: int, later: int) -> float:
        return first + later * parts + images * (1 + 1 / parts)

    most = math.ceil(horizon / max(usual, apart))
    least = int(math.sqrt(images / later))  # or one more: there the total is least
    best = min((least, least + 1), key=lambda parts: total(parts, later) if parts else math.inf)
    best = min(best, most)
    roomy = total(most, first) + fork <= config.correction_bytes
    return usual if roomy or total(best, later) > config.correction_bytes else horizon // best
