# SPDX-License-Identifier: Apache-2.0
"""Memory for what stays: the same values and layout, and pages that go back to the system."""

import gc
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from lazyxmem_ros.xmem import Frame, MemoryConfig, XMem, XMemTracker
from lazyxmem_ros.xmem.memory import Memory
from lazyxmem_ros.xmem.storage import ALIGNMENT, PAGES_FROM, lasting_copies, lasting_zeros

CPU = torch.device("cpu")
MIB = 1 << 20

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def various() -> list[torch.Tensor]:
    """Dense and not, channels first and last, of odd sizes and several types."""
    torch.manual_seed(0)
    images = torch.randn(1, 5, 30, 31)
    return [
        images,
        images.to(memory_format=torch.channels_last),
        torch.randn(70, 9)[3:50],
        torch.randn(9, 70).T,
        torch.randn(6, 40, 40)[2],
        torch.arange(77),
        torch.arange(5) > 2,
        torch.zeros(0, 4),
        torch.tensor(3.0),
        torch.randn(5, 33).half(),
    ]


@pytest.mark.parametrize("more", [0, PAGES_FROM])
def test_copies_are_equal_in_values_type_and_layout(more: int) -> None:
    originals = [*various(), torch.zeros(more, dtype=torch.uint8)]
    copies = lasting_copies(originals)
    for original, copy in zip(originals, copies, strict=True):
        clone = original.clone()
        assert copy.dtype is clone.dtype
        assert copy.shape == clone.shape
        assert copy.stride() == clone.stride()
        assert copy.nbytes == clone.nbytes
        assert torch.equal(copy, clone)
        assert copy.data_ptr() % ALIGNMENT == 0


def test_copies_have_a_life_of_their_own() -> None:
    originals = [torch.ones(PAGES_FROM), torch.ones(7), torch.ones(7)]
    copies = lasting_copies(originals)
    copies[1].zero_()
    originals[0].zero_()
    assert copies[0].eq(1).all()
    assert copies[2].eq(1).all()
    assert originals[1].eq(1).all()


def test_copies_that_share_pages_can_be_written_to_a_file() -> None:
    """As snapshots are; the file holds each of them once."""
    originals = {str(n): t.contiguous() for n, t in enumerate(various())}
    originals["large"] = torch.randn(PAGES_FROM)
    copies = dict(zip(originals, lasting_copies(list(originals.values())), strict=True))
    data = safetensors.torch.save(copies)
    assert data == safetensors.torch.save(originals)
    loaded = safetensors.torch.load(data)
    assert all(torch.equal(loaded[name], t) for name, t in originals.items())


def test_copies_of_nothing() -> None:
    assert lasting_copies([]) == []


@pytest.mark.parametrize("rows", [3, PAGES_FROM])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_zeros(rows: int, dtype: torch.dtype) -> None:
    zeros = lasting_zeros(rows, 2, dtype=dtype, device=CPU)
    assert zeros.shape == (rows, 2)
    assert zeros.dtype is dtype
    assert not zeros.any()
    zeros[1] = 1
    assert zeros.sum() == 2


@linux_only
def test_the_pages_are_there_at_once_and_go_with_the_last_tensor() -> None:
    before = resident()
    zeros = lasting_zeros(64 * MIB, dtype=torch.uint8, device=CPU)
    assert resident() - before > 60 * MIB
    first, second = lasting_copies([zeros, torch.ones(3)])
    del zeros
    assert resident() - before > 60 * MIB
    del first
    assert second.eq(1).all()  # its pages hold the larger one, too
    assert resident() - before > 60 * MIB
    del second
    assert resident() - before < 4 * MIB


@linux_only
def test_an_object_that_is_removed_gives_its_values_back_to_the_system() -> None:
    memory = Memory(MemoryConfig(), tokens_per_frame=48, key_dim=8, value_dim=512, device=CPU)
    memory.add_object(1, birth=0)
    before = resident()
    for object_id in range(2, 7):
        memory.add_object(object_id, birth=0)
    values = 10_480 * 512 * 4
    assert resident() - before > 4.9 * values
    for object_id in range(2, 7):
        memory.remove_object(object_id)
    assert resident() - before < 0.1 * values


@linux_only
def test_copies_of_memory_come_and_go_without_a_trace() -> None:
    memory = Memory(MemoryConfig(), tokens_per_frame=400, key_dim=64, value_dim=512, device=CPU)
    memory.add_object(1, birth=0)
    for index in range(5):
        memory.write(
            index,
            key=torch.randn(400, 64),
            shrinkage=torch.ones(400),
            selection=torch.rand(400, 64),
            values={1: torch.randn(400, 512)},
            shows=torch.ones(400, dtype=torch.int64),
        )
    before = resident()
    states = [memory.state() for _ in range(8)]
    held = sum(state.nbytes for state in states)
    assert held > 32 * MIB
    assert resident() - before > 0.9 * held
    # Whatever is allocated meanwhile and stays does not keep their place.
    between = [torch.ones(100) for _ in range(100)]
    del states[::2]
    assert resident() - before < 0.6 * held
    del states, between
    assert resident() - before < 0.1 * held


def parts(frame: Frame) -> list[torch.Tensor]:
    assert frame.features is not None
    return [*frame.kept()]


def test_a_settled_frame_is_the_same_frame(small_network: XMem) -> None:
    """Settled while it is open and after it was closed; what follows is equal to the bit."""
    images = np.random.default_rng(0).integers(0, 256, (12, 144, 160, 3), dtype=np.uint8)
    shown = np.zeros((144, 160), bool)
    shown[40:90, 30:100] = True
    config = MemoryConfig(memory_every=2)
    plain, settling = XMemTracker(small_network, config), XMemTracker(small_network, config)
    for index, image in enumerate(images):
        given = {1: shown, 2: ~shown} if index == 0 else None
        expected, frame = plain.segment(image, given), settling.segment(image, given)
        frame.settle()
        plain.memorize(expected)
        settling.memorize(frame)
        frame.settle()
        for mine, theirs in zip(parts(frame), parts(expected), strict=True):
            assert torch.equal(mine, theirs)
            assert mine.data_ptr() != theirs.data_ptr()
        assert torch.equal(frame.probabilities, expected.probabilities)
        assert frame.given.keys() == expected.given.keys()


def test_what_has_settled_is_not_moved_again(small_network: XMem) -> None:
    image = np.random.default_rng(0).integers(0, 256, (144, 160, 3), dtype=np.uint8)
    shown = np.zeros((144, 160), bool)
    shown[40:90, 30:100] = True
    tracker = XMemTracker(small_network)
    frame = tracker.segment(image, {1: shown})
    frame.settle()
    before = [t.data_ptr() for t in parts(frame)]
    frame.settle()
    assert [t.data_ptr() for t in parts(frame)] == before
    tracker.correct(frame, {1: shown})  # renews the distribution
    frame.settle()
    moved = [t.data_ptr() != was for t, was in zip(parts(frame), before, strict=True)]
    assert moved == [t is frame.distribution for t in parts(frame)]


def assert_no_page_for_nothing(frame: Frame) -> None:
    kept = [*frame.kept()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in kept}
    held = sum(storage.nbytes() for storage in storages.values())
    assert held <= sum(t.nbytes for t in kept) + len(kept) * ALIGNMENT


def test_what_is_replaced_or_let_go_holds_no_page(small_network: XMem) -> None:
    image = np.random.default_rng(0).integers(0, 256, (144, 160, 3), dtype=np.uint8)
    shown = np.zeros((144, 160), bool)
    shown[40:90, 30:100] = True
    tracker, other = XMemTracker(small_network), XMemTracker(small_network)
    past = tracker.segment(image, {1: shown, 2: ~shown})
    past.settle()
    assert_no_page_for_nothing(past)
    tracker.memorize(past)
    frame = other.resegment(past)  # with another prediction
    del past, tracker
    frame.settle()
    assert_no_page_for_nothing(frame)
    other.correct(frame, {1: ~shown, 2: shown})
    frame.settle()
    assert_no_page_for_nothing(frame)
    frame.set_distribution(frame.distribution, ungated=torch.rand_like(frame.distribution))
    frame.settle()
    frame.ungated = None  # as once there is a newer frame
    assert_no_page_for_nothing(frame)
    copy = frame.copy()
    for kept, prediction in ((copy, False), (frame, True)):
        kept.release(prediction=prediction)
        assert_no_page_for_nothing(kept)


def test_masks_at_the_size_of_the_image_are_not_kept(small_network: XMem) -> None:
    tracker = XMemTracker(small_network, max_internal_size=48)
    image = np.random.default_rng(0).integers(0, 256, (144, 160, 3), dtype=np.uint8)
    frame = tracker.segment(image, {1: np.eye(144, 160, dtype=bool)})
    frame.settle()
    for _ in range(2):
        assert frame.probabilities.shape == (2, 144, 160)
        frame.settle()
        assert frame._probabilities is None
