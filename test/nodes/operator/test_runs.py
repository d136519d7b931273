# SPDX-License-Identifier: Apache-2.0
"""Masks and label maps survive the way to the page and back."""

from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.nodes.operator.runs import (
    MAX_LENGTH,
    MAX_VALUES,
    RunsError,
    pack_labels,
    pack_mask,
    pack_values,
    unpack_mask,
    unpack_values,
)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_mask_comes_back(density: float) -> None:
    mask = np.random.default_rng(0).random((37, 53)) < density
    np.testing.assert_array_equal(unpack_mask(pack_mask(mask), mask.shape), mask)


def test_a_run_longer_than_a_word_holds_is_split() -> None:
    values = np.zeros((1, MAX_LENGTH + 5), np.uint8)
    values[0, -2:] = 7
    data = pack_values(values)
    assert len(data) == 3 * 4
    np.testing.assert_array_equal(unpack_values(data, values.shape), values)


def test_labels_of_16_bits_are_named_by_their_ids() -> None:
    labels = np.zeros((4, 6), np.uint16)
    labels[1, 1:3], labels[2:, 4] = 700, 3
    data, ids = pack_labels(labels)
    assert ids == (3, 700)
    values = unpack_values(data, labels.shape)
    np.testing.assert_array_equal(np.array((0, *ids))[values], labels)


def test_of_too_many_objects_the_first_are_shown() -> None:
    labels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    data, ids = pack_labels(labels)
    assert ids == tuple(range(1, MAX_VALUES + 1))
    assert unpack_values(data, labels.shape).max() == MAX_VALUES


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\1\0\0", "whole number"),
        (b"", "cover 0 pixels"),
        (b"\5\0\0\0", "cover 5 pixels"),
        (b"\xff\xff\xff\xff" * 1000, "cover"),
        (b"\0\0\0\1" + b"\6\0\0\0", "length 0"),
    ],
)
def test_other_bytes_are_refused(data: bytes, fault: str) -> None:
    with pytest.raises(RunsError, match=fault):
        unpack_values(data, (2, 3))
