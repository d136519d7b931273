# SPDX-License-Identifier: Apache-2.0
"""What computes the convolutions: PyTorch itself, or OpenVINO on a processor.

OpenVINO takes the network's three parts as they are, key encoder, value encoder and decoder, in
float32 or in what `precision` names; their sizes and the number of objects stay open, so that one
export serves every video. Memory is PyTorch's and float32 always. Translating the parts takes
seconds and is done once: the result is kept in the user's cache, under a name that changes with
the weights, the network's code and OpenVINO's version.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lazyxmem_ros.extras import install_command
from lazyxmem_ros.weights import cache_directory
from lazyxmem_ros.xmem import network as network_module
from lazyxmem_ros.xmem.checkpoint import weights_digest
from lazyxmem_ros.xmem.device import resolve_device, resolve_precision
from lazyxmem_ros.xmem.errors import BackendError
from lazyxmem_ros.xmem.folding import fold_batch_norm
from lazyxmem_ros.xmem.network import STRIDE, KeyFeatures, XMem

BACKENDS = ("auto", "torch", "openvino")

_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
"""OpenVINO's names of the types of `resolve_precision`."""
_EXAMPLE_TOKENS, _EXAMPLE_OBJECTS = (4, 6), 2
"""What the parts are traced with; their exports take any other height, width and number."""
_DIGEST_DIGITS = 16


def with_backend(
    network: XMem,
    backend: str = "auto",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> XMem:
    """The network as a backend computes it; to be called once, before any tracker is made of it.

    Args:
        network: in evaluation mode; it is not changed.
        backend: "torch"; "openvino", which computes on a processor alone; or "auto", OpenVINO
            where it is installed and the device is a processor.
        device: as for `XMemTracker`.
        precision: likewise. What a processor has not, OpenVINO computes in float32.
        say: is told what is chosen for want of another, and what takes long.

    Raises:
        BackendError: the backend is unknown, not installed, or not for this device.

    """
    if backend not in BACKENDS:
        raise BackendError(f'backend "{backend}" is unknown: use {", ".join(BACKENDS)}')
    place = resolve_device(device)
    if backend == "torch" or (backend == "auto" and place.type != "cpu"):
        return network
    if place.type != "cpu":
        raise BackendError(f"openvino computes on the cpu, not on {place}: use backend torch")
    if importlib.util.find_spec("openvino") is None:
        advice = f"OpenVINO is not installed; {install_command('openvino')} brings it"
        if backend == "openvino":
            raise BackendError(advice)
        say(f"PyTorch computes the network. {advice}, and is quicker on a processor")
        return network
    return OpenVinoNetwork(network, resolve_precision(precision, place), say)


class OpenVinoNetwork(XMem):
    """A network whose three parts are OpenVINO's. Its parameters are there to be looked at."""

    def __init__(self, network: XMem, precision: torch.dtype, say: Callable[[str], None]) -> None:
        nn.Module.__init__(self)
        folded = fold_batch_norm(network.eval())
        self.config = folded.config
        for name, module in folded.named_children():
            self.add_module(name, module)
        with _translated(folded, say) as models:
            try:
                self._key, self._value, self._decoder = (
                    _Compiled(models / f"{part.name}.xml", precision) for part in _parts(folded)
                )
            except RuntimeError as error:
                raise BackendError(
                    f"OpenVINO cannot use {models}: {error}; remove that directory and try again, "
                    "or use backend torch"
                ) from error

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """As XMem's."""
        return KeyFeatures(*self._key(image))

    def encode_value(
        self,
        image: Tensor,
        f16: Tensor,
        masks: Tensor,
        hidden: Tensor | None,
        *,
        deep_update: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """As XMem's, for one image."""
        value, *renewed = self._value(image, f16, masks, hidden)
        return value, renewed[0] if deep_update and renewed else hidden

    def decode(
        self,
        features: KeyFeatures,
        readout: Tensor,
        hidden: Tensor | None,
        *,
        update_hidden: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """As XMem's, for one image."""
        logits, *renewed = self._decoder(*features[3:], readout, hidden)
        return logits, renewed[0] if update_hidden and renewed else hidden


class _Compiled:
    """One part, compiled for this processor. Threads may call it, one after the other."""

    def __init__(self, model: Path, precision: torch.dtype) -> None:
        import openvino

        self._lock = threading.Lock()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _TYPES[precision],
            # As many as PyTorch has; neither binds them to cores, which others need, too.
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,
        }
        # OpenVINO gives the compiling thread a signal stack that goes with the model. In a thread
        # that lives on, the next signal would end the process by a segmentation fault.
        with ThreadPoolExecutor(max_workers=1) as passing:
            compiling = passing.submit(openvino.Core().compile_model, model, "CPU", settings)
            self._model = compiling.result()

    def __call__(self, *inputs: Tensor | None) -> list[Tensor]:
        arrays = [np.ascontiguousarray(each.numpy()) for each in inputs if each is not None]
        with self._lock:
            outputs = self._model(arrays, share_inputs=True, share_outputs=False)
            return [torch.from_numpy(outputs[i]) for i in range(len(self._model.outputs))]


# ---------------------------------------------------------------------------------------------
# Translation


class _Input(NamedTuple):
    example: Tensor
    shape: tuple[int, ...]
    """-1 where any size will do."""


class _Part(NamedTuple):
    name: str
    forward: Callable[..., Sequence[Tensor]]
    inputs: list[_Input]


def _of_image(channels: int, stride: int) -> _Input:
    """[1, C, H / stride, W / stride]."""
    sizes = (n * STRIDE // stride for n in _EXAMPLE_TOKENS)
    return _Input(torch.zeros(1, channels, *sizes), (1, channels, -1, -1))


def _of_objects(channels: int) -> _Input:
    """[1, K, C, h, w]."""
    example = torch.zeros(1, _EXAMPLE_OBJECTS, channels, *_EXAMPLE_TOKENS)
    return _Input(example, (1, -1, channels, -1, -1))


def _parts(network: XMem) -> list[_Part]:
    """The network's three parts, with the hidden state always renewed where there is one."""
    config = network.config
    c4, c8, c16 = config.key_encoder.channels
    image, f16, f8, f4 = _of_image(3, 1), _of_image(c16, 16), _of_image(c8, 8), _of_image(c4, 4)
    masks = _Input(_of_image(_EXAMPLE_OBJECTS, 1).example, (1, -1, -1, -1))
    readout = _of_objects(config.value_dim)
    hidden = [_of_objects(config.hidden_dim)] if config.hidden_dim else []

    def encode_value(image: Tensor, f16: Tensor, masks: Tensor, *hidden: Tensor) -> list[Tensor]:
        value, renewed = network.value_encoder(
            image, f16, masks, hidden[0] if hidden else None, deep_update=True
        )
        return [value] if renewed is None else [value, renewed]

    def decode(
        f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, *hidden: Tensor
    ) -> list[Tensor]:
        logits, renewed = network.decoder(
            f16, f8, f4, readout, hidden[0] if hidden else None, update_hidden=True
        )
        return [logits] if renewed is None else [logits, renewed]

    return [
        _Part("key", network.encode_key, [image]),
        _Part("value", encode_value, [image, f16, masks, *hidden]),
        _Part("decoder", decode, [f16, f8, f4, readout, *hidden]),
    ]


class _Traceable(nn.Module):
    """A part as a module of its own."""

    def __init__(self, network: XMem, part: _Part) -> None:
        super().__init__()
        self.network = network
        self._forward = part.forward

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._forward(*inputs))


def _translate(network: XMem, part: _Part) -> Any:
    """An openvino.Model of the part, which takes any height, width and number of objects."""
    # openvino.convert_model does the same, but reports its use over the network.
    from openvino import PartialShape, Type
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        examples = tuple(each.example for each in part.inputs)
        traced = torch.jit.trace(_Traceable(network, part), examples, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # named, for the front end does not keep it
    model = frontend.convert(frontend.load(decoder))
    for parameter, given in zip(model.inputs, part.inputs, strict=True):
        parameter.get_node().set_partial_shape(PartialShape(given.shape))
        parameter.get_node().set_element_type(Type.f32)
    model.validate_nodes_and_infer_types()
    return model


@contextmanager
def _translated(network: XMem, say: Callable[[str], None]) -> Iterator[Path]:
    """Within, the directory of the parts' models: the cache's, or, where that cannot be had, a
    passing one.
    """
    import openvino

    kept = cache_directory() / "openvino" / _name(network, openvino.__version__)
    if kept.is_dir():
        yield kept
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=".partial-", dir=kept.parent)
    except OSError as error:
        say(f"the network is translated at every start, for {kept.parent} cannot be used: {error}")
        place = tempfile.TemporaryDirectory()
    with place as name:
        made = Path(name)
        say("translating the network for OpenVINO, once for these weights: a few seconds")
        for part in _parts(network):
            openvino.save_model(
                _translate(network, part), made / f"{part.name}.xml", compress_to_fp16=False
            )
        yield made
        if made.parent == kept.parent:
            _keep(made, kept)


def _keep(made: Path, kept: Path) -> None:
    """Move the models to their place in one step, unless another process was quicker."""
    try:
        made.rename(kept)
        made.mkdir()  # for the TemporaryDirectory to remove
    except OSError:
        if not kept.is_dir():
            raise


def _name(network: XMem, version: str) -> str:
    """A name that changes with all that the models depend on."""
    facts = [weights_digest(network), version, _code()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:_DIGEST_DIGITS]


@functools.cache
def _code() -> str:
    """The code that is translated, and that translates."""
    files = (network_module.__file__, __file__)
    return "".join(Path(file).read_text() for file in files)
