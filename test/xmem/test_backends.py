# SPDX-License-Identifier: Apache-2.0
"""OpenVINO and ncnn compute what PyTorch does; where they cannot, it is said what to do."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import DATA, TOLERANCE, deviation, memory_config
from networks import small_network

from lazyxmem_ros.extras import MODULES
from lazyxmem_ros.xmem import (
    BackendError,
    EncoderConfig,
    NetworkConfig,
    XMem,
    XMemTracker,
    ncnn_network,
    save_network,
    with_backend,
)

ROUNDING = 1e-4
FRAMES = 18
"""Of the golden sequence: with the third object and long-term memory."""
INSTALLED = {
    backend: all(importlib.util.find_spec(module) for module in MODULES[backend])
    for backend in ("openvino", "ncnn")
}
needs_openvino = pytest.mark.skipif(not INSTALLED["openvino"], reason="needs openvino")
needs_ncnn = pytest.mark.skipif(not INSTALLED["ncnn"], reason="needs ncnn and pnnx")
each_runtime = pytest.mark.parametrize(
    "backend",
    [pytest.param("openvino", marks=needs_openvino), pytest.param("ncnn", marks=needs_ncnn)],
)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ncnn's translations take seconds: tests of the same network have the same."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_shared_cache(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(shared_cache))


@pytest.fixture
def cache(in_shared_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One of its own."""
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def keep(cache: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Fills the cache of one's own with what the shared one has for a backend, the translation of
    the small network among it.
    """

    def fill(backend: str) -> None:
        with monkeypatch.context() as shared:
            shared.setenv("LAZYXMEM_WEIGHTS", str(shared_cache))
            on_runtime(backend, small_network())
        shutil.copytree(shared_cache / backend, cache / backend)

    return fill


def on_runtime(backend: str, network: XMem, said: list[str] | None = None) -> XMem:
    say = [].append if said is None else said.append
    return with_backend(network, backend, device="cpu", precision="float32", say=say)


def processor(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


def without_hidden_state() -> XMem:
    """With inverted residuals, and without a hidden state."""
    torch.manual_seed(0)
    encoder = EncoderConfig("inverted", 8, (1, 1, 1, 1, 1), (8, 8, 8, 16, 16))
    value_encoder = EncoderConfig("basic", 8, (1, 1, 1), (8, 8, 16))
    dims = {"key_dim": 8, "value_dim": 16, "hidden_dim": 0, "decoder_dims": (16, 8, 8)}
    return XMem(NetworkConfig(encoder, value_encoder, **dims)).eval()


@each_runtime
def test_sequence_agrees(backend: str, golden_network: XMem, cache: Path) -> None:
    """With two objects and then three, and with long-term memory."""
    golden = np.load(DATA / "sequence_new_object.npz")
    tracker = XMemTracker(on_runtime(backend, golden_network), memory_config(golden["config"]))
    given = {0: {1: golden["first_masks"][0] > 0, 2: golden["first_masks"][1] > 0}}
    given[int(golden["added_at"])] = {3: golden["added_mask"] > 0}
    for i, image in enumerate(golden["frames"][:FRAMES]):
        frame = tracker.segment(image, given.get(i))
        assert deviation(frame.probabilities, golden["probs"][i]) <= TOLERANCE, f"frame {i}"
        tracker.memorize(frame)
    assert len(frame.object_ids) == 3
    assert tracker.memory_tokens[1] > 0


@each_runtime
@pytest.mark.parametrize("make", [small_network, without_hidden_state])
def test_one_translation_serves_all_sizes_and_numbers(
    make: Callable[[], XMem], backend: str
) -> None:
    network = make()
    other = on_runtime(backend, network)
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
    on_runtime("openvino", small_network(), said)
    assert len(said) == 1
    assert "once" in said[0]
    assert len(list((cache / "openvino").iterdir())) == 1
    on_runtime("openvino", small_network(), said)
    assert len(said) == 1
    changed = small_network()
    with torch.no_grad():
        changed.decoder.pred.bias += 1
    on_runtime("openvino", changed, said)
    assert len(said) == 2
    assert len(list((cache / "openvino").iterdir())) == 2


PARTS = {
    "openvino": ["decoder.xml", "key.xml", "value.xml"],
    "ncnn": ["decoder.param", "key.param", "skips.param", "value.param"],
}


@each_runtime
def test_a_damaged_translation_is_named(
    cache: Path, keep: Callable[[str], None], backend: str
) -> None:
    keep(backend)
    for kept in (cache / backend).iterdir():
        parts = sorted(file.name for file in kept.iterdir() if file.suffix != ".bin")
        assert parts == PARTS[backend]
        (kept / parts[-1]).write_text("<net")
    with pytest.raises(BackendError, match="try again") as raised:
        on_runtime(backend, small_network())
    assert any(f"remove {kept}" in str(raised.value) for kept in (cache / backend).iterdir())


@needs_openvino
def test_a_cache_that_cannot_be_written_costs_time_alone(cache: Path) -> None:
    (cache / "openvino").write_text("a file where the directory should be")
    said: list[str] = []
    network = on_runtime("openvino", small_network(), said)
    assert "at every start" in said[0]
    image = torch.zeros(1, 3, 32, 32)
    assert network.encode_key(image).key.shape == (1, 8, 2, 2)


@needs_ncnn
def test_a_translation_that_computes_something_else_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = F.avg_pool2d
    translate = ncnn_network._translate

    def mistranslate(*arguments: object) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(F, "avg_pool2d", lambda x, side: 2 * truth(x, side))
            translate(*arguments)

    monkeypatch.setattr(ncnn_network, "_translate", mistranslate)
    with pytest.raises(BackendError, match="decoder part otherwise than PyTorch"):
        on_runtime("ncnn", small_network())
    assert not list((cache / "ncnn").iterdir())


@pytest.mark.skipif(not all(INSTALLED.values()), reason="needs openvino, ncnn and pnnx")
@pytest.mark.parametrize(
    ("capability", "precision", "chosen"),
    [
        ("AVX2", "float32", "NcnnNetwork"),
        ("AVX2", "bfloat16", "OpenVinoNetwork"),
        ("AVX512", "float32", "OpenVinoNetwork"),
    ],
)
def test_auto_takes_the_quickest_for_the_processor(
    capability: str, precision: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, capability)
    network = with_backend(small_network(), "auto", device="cpu", precision=precision)
    assert type(network).__name__ == chosen


def test_auto_is_torch_on_a_gpu() -> None:
    network = small_network()
    assert with_backend(network, "auto", device=torch.device("cuda")) is network


@needs_ncnn
def test_auto_passes_over_what_does_not_translate(
    keep: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if INSTALLED["openvino"]:
        keep("openvino")
    processor(monkeypatch, "AVX2")
    monkeypatch.setattr("pnnx.EXEC_PATH", "/bin/false")
    said: list[str] = []
    network = with_backend(
        small_network(), "auto", device="cpu", precision="float32", say=said.append
    )
    assert any("ncnn is passed over: pnnx cannot translate" in text for text in said)
    assert not isinstance(network, ncnn_network.NcnnNetwork)
    with pytest.raises(BackendError, match="use another backend"):
        on_runtime("ncnn", small_network())


@pytest.mark.parametrize(("capability", "missed"), [("AVX2", "ncnn"), ("AVX512", "openvino")])
def test_without_a_runtime(capability: str, missed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    network, said = small_network(), []
    choices = {"device": "cpu", "precision": "float32", "say": said.append}
    assert with_backend(network, "auto", **choices) is network
    assert len(said) == 1
    assert f"pip install 'lazyxmem_ros[{missed}]'" in said[0]
    assert with_backend(network, "torch", **choices) is network
    assert len(said) == 1
    with pytest.raises(BackendError, match=rf"pip install 'lazyxmem_ros\[{missed}\]'"):
        with_backend(network, missed, device="cpu")


def test_what_cannot_be() -> None:
    with pytest.raises(BackendError, match="use auto, torch, openvino, ncnn"):
        with_backend(small_network(), "tensorrt", device="cpu")
    with pytest.raises(BackendError, match="use backend torch"):
        with_backend(small_network(), "ncnn", device=torch.device("cuda"))


SIGNALLED = """
import gc, pathlib, signal, sys
from lazyxmem_ros.lazy import open_tracker

tracker = open_tracker(pathlib.Path(sys.argv[1]), backend="openvino")
del tracker
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("asked to end"))
signal.raise_signal(signal.SIGTERM)
"""


@needs_openvino
def test_a_signal_after_a_tracker_is_gone_reaches_its_handler(
    keep: Callable[[str], None], tmp_path: Path
) -> None:
    """OpenVINO changes the compiling thread's signal stack: without one of its own, a crash."""
    keep("openvino")
    weights = tmp_path / "small.safetensors"
    save_network(small_network(), weights)
    program = [sys.executable, "-c", SIGNALLED, str(weights)]
    ended = subprocess.run(program, timeout=120, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "asked to end\n"), ended.stderr
