# SPDX-License-Identifier: Apache-2.0
"""The network's parts computed by OpenVINO, on a processor.

It takes the three parts as they are, key encoder, value encoder and decoder, in float32 or in what
`precision` names. Their sizes and the number of objects stay open, so that one translation serves
every video.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lazyxmem_ros.xmem.errors import BackendError
from lazyxmem_ros.xmem.folding import fold_batch_norm
from lazyxmem_ros.xmem.network import STRIDE, KeyFeatures, XMem
from lazyxmem_ros.xmem.translation import Say, TraceablePart, TranslatedNetwork, translated

_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
"""OpenVINO's names of the types of `resolve_precision`."""
_EXAMPLE_TOKENS, _EXAMPLE_OBJECTS = (4, 6), 2
"""What the parts are traced with; their exports take any other height, width and number."""


class OpenVinoNetwork(TranslatedNetwork):
    """A network whose three parts are OpenVINO's."""

    def __init__(self, network: XMem, precision: torch.dtype, say: Say) -> None:
        import openvino

        folded = fold_batch_norm(network.eval())
        super().__init__(folded)
        parts = _parts(folded)

        def write(directory: Path) -> None:
            for part in parts:
                model = _translate(folded, part)
                openvino.save_model(model, directory / f"{part.name}.xml", compress_to_fp16=False)

        with translated(
            folded,
            "openvino",
            depends_on=[openvino.__version__, __file__],
            write=write,
            say=say,
            takes="a few seconds",
        ) as models:
            try:
                self._key, self._value, self._decoder = (
                    _Compiled(models / f"{part.name}.xml", precision) for part in parts
                )
            except RuntimeError as error:
                raise BackendError(
                    f"OpenVINO cannot use a translation ({error}): remove {models} and try again, "
                    "or use another backend"
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


def _translate(network: XMem, part: _Part) -> Any:
    """An openvino.Model of the part, which takes any height, width and number of objects."""
    # openvino.convert_model does the same, but reports its use over the network.
    from openvino import PartialShape, Type
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        examples = tuple(each.example for each in part.inputs)
        traced = torch.jit.trace(TraceablePart(network, part.forward), examples, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # named, for the front end does not keep it
    model = frontend.convert(frontend.load(decoder))
    for parameter, given in zip(model.inputs, part.inputs, strict=True):
        parameter.get_node().set_partial_shape(PartialShape(given.shape))
        parameter.get_node().set_element_type(Type.f32)
    model.validate_nodes_and_infer_types()
    return model
