# SPDX-License-Identifier: Apache-2.0
"""OpenVINO computes what PyTorch does; where it cannot, it is said what to do."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import DATA, TOLERANCE, deviation, memory_config
from networks import small_network

from lazyxmem_ros.xmem import (
    BackendError,
    EncoderConfig,
    NetworkConfig,
    XMem,
    XMemTracker,
    with_backend,
)

ROUNDING = 1e-4
WITHOUT_OPENVINO = importlib.util.find_spec("openvino") is None
needs_openvino = pytest.mark.skipif(WITHOUT_OPENVINO, reason="needs openvino")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path))
    return tmp_path / "openvino"


def on_openvino(network: XMem, said: list[str] | None = None) -> XMem:
    say = [].append if said is None else said.append
    return with_backend(network, "openvino", device="cpu", precision="float32", say=say)


def without_hidden_state() -> XMem:
    """With inverted residuals, and without a hidden state."""
    torch.manual_seed(0)
    encoder = EncoderConfig("inverted", 8, (1, 1, 1, 1, 1), (8, 8, 8, 16, 16))
    value_encoder = EncoderConfig("basic", 8, (1, 1, 1), (8, 8, 16))
    dims = {"key_dim": 8, "value_dim": 16, "hidden_dim": 0, "decoder_dims": (16, 8, 8)}
    return XMem(NetworkConfig(encoder, value_encoder, **dims)).eval()


@needs_openvino
@pytest.mark.parametrize("name", ["long_term", "new_object"])
def test_sequence_agrees(name: str, golden_network: XMem) -> None:
    golden = np.load(DATA / f"sequence_{name}.npz")
    tracker = XMemTracker(on_openvino(golden_network), memory_config(golden["config"]))
    given = {0: {1: golden["first_masks"][0] > 0, 2: golden["first_masks"][1] > 0}}
    if "added_at" in golden:
        given[int(golden["added_at"])] = {3: golden["added_mask"] > 0}
    for i, image in enumerate(golden["frames"]):
        frame = tracker.segment(image, given.get(i))
        assert deviation(frame.probabilities, golden["probs"][i]) <= TOLERANCE, f"frame {i}"
        tracker.memorize(frame)


@needs_openvino
@pytest.mark.parametrize("make", [small_network, without_hidden_state])
def test_one_translation_serves_all_sizes_and_numbers(make: Callable[[], XMem]) -> None:
    network = make()
    other = on_openvino(network)
    rng = np.random.default_rng(0)
    for height, width, objects in ((48, 64, 1), (96, 80, 3), (32, 32, 7)):
        masks = {i + 1: rng.random((height, width)) < 0.3 for i in range(objects)}
        trackers = [XMemTracker(each) for each in (network, other)]
        for i in range(7):
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            frames = [tracker.segment(image, None if i else masks) for tracker in trackers]
            ours, theirs = (frame.probabilities for frame in frames)
            assert ours.shape == (objects + 1, height, width)
            assert (ours - theirs).abs().max() <= ROUNDING
            for tracker, frame in zip(trackers, frames, strict=True):
                tracker.memorize(frame)


@needs_openvino
def test_the_network_is_translated_once_for_the_same_weights(cache: Path) -> None:
    said: list[str] = []
    on_openvino(small_network(), said)
    assert len(said) == 1
    assert "once" in said[0]
    (kept,) = cache.iterdir()
    assert sorted(file.name for file in kept.glob("*.xml")) == [
        "decoder.xml",
        "key.xml",
        "value.xml",
    ]
    on_openvino(small_network(), said)
    assert len(said) == 1
    changed = small_network()
    with torch.no_grad():
        changed.decoder.pred.bias += 1
    on_openvino(changed, said)
    assert len(said) == 2
    assert len(list(cache.iterdir())) == 2


@needs_openvino
def test_a_damaged_translation_is_named(cache: Path) -> None:
    on_openvino(small_network())
    (kept,) = cache.iterdir()
    (kept / "value.xml").write_text("<net")
    with pytest.raises(BackendError, match="remove that directory") as raised:
        on_openvino(small_network())
    assert str(kept) in str(raised.value)


@needs_openvino
def test_a_cache_that_cannot_be_written_costs_time_alone(cache: Path) -> None:
    cache.write_text("a file where the directory should be")
    said: list[str] = []
    network = on_openvino(small_network(), said)
    assert "at every start" in said[0]
    image = torch.zeros(1, 3, 32, 32)
    assert network.encode_key(image).key.shape == (1, 8, 2, 2)


@needs_openvino
def test_auto_takes_openvino_on_a_processor() -> None:
    network = small_network()
    assert with_backend(network, "auto", device="cpu") is not network
    assert with_backend(network, "auto", device=torch.device("cuda")) is network


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    network, said = small_network(), []
    assert with_backend(network, "auto", device="cpu", say=said.append) is network
    assert len(said) == 1
    assert "pip install 'lazyxmem_ros[openvino]'" in said[0]
    assert with_backend(network, "torch", device="cpu", say=said.append) is network
    assert len(said) == 1
    with pytest.raises(BackendError, match=r"pip install 'lazyxmem_ros\[openvino\]'"):
        with_backend(network, "openvino", device="cpu")


def test_what_cannot_be() -> None:
    with pytest.raises(BackendError, match="use auto, torch, openvino"):
        with_backend(small_network(), "tensorrt", device="cpu")
    with pytest.raises(BackendError, match="use backend torch"):
        with_backend(small_network(), "openvino", device=torch.device("cuda"))


SIGNALLED = """
import gc, signal
from lazyxmem_ros.lazy import open_tracker

tracker = open_tracker(backend="openvino")
del tracker
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("asked to end"))
signal.raise_signal(signal.SIGTERM)
"""


@needs_openvino
def test_a_signal_after_a_tracker_is_gone_reaches_its_handler() -> None:
    """OpenVINO changes the compiling thread's signal stack: without one of its own, a crash."""
    program = [sys.executable, "-c", SIGNALLED]
    ended = subprocess.run(program, timeout=120, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "asked to end\n"), ended.stderr
