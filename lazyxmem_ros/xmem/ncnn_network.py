# SPDX-License-Identifier: Apache-2.0
"""The network's parts computed by ncnn, on a processor and in float32.

ncnn multiplies 3x3 convolutions out by Winograd's algorithm (Lavin and Gray, CVPR 2016), which
needs a fraction of the multiplications; PyTorch and OpenVINO do not on such a processor. Its
tensors have no batch dimension, so the value encoder and the decoder go through the objects one
after the other; what they share of the image is computed once. pnnx translates the parts.
"""

from __future__ import annotations

import os
import subprocess
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyxmem_ros.extras import MODULES
from lazyxmem_ros.signals import undisturbed
from lazyxmem_ros.xmem.errors import BackendError
from lazyxmem_ros.xmem.folding import fold_batch_norm
from lazyxmem_ros.xmem.network import STRIDE, KeyFeatures, XMem, resize
from lazyxmem_ros.xmem.translation import Say, TraceablePart, TranslatedNetwork, translated

_EXAMPLE_TOKENS = ((2, 3), (4, 5))
"""Two sizes of the examples: what differs between the two is left open."""
_TOLERANCE = 1e-3
"""Largest difference of a translation from what it was made of, in units of the largest value."""


class NcnnNetwork(TranslatedNetwork):
    """A network whose parts are ncnn's."""

    def __init__(self, network: XMem, say: Say) -> None:
        folded = fold_batch_norm(network.eval())
        super().__init__(folded)
        parts = _parts(folded)

        def write(directory: Path) -> None:
            for part in parts:
                _translate(folded, part, directory)
                _check(part, directory)

        with translated(
            folded,
            "ncnn",
            depends_on=[*map(version, MODULES["ncnn"]), __file__],
            write=write,
            say=say,
            takes="about 15 s",
        ) as models:
            self._key, self._skips, self._decoder, self._value = (
                _Loaded(models, part.name, part.outputs) for part in parts
            )

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """As XMem's, for one image."""
        return KeyFeatures(*(each[None] for each in self._key(image[0])))

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
        everything = masks[0].sum(0)
        outputs = []
        for position, mask in enumerate(masks[0]):
            pixels = torch.cat([image[0], torch.stack([mask, everything - mask])])
            states = [] if hidden is None else [hidden[0, position]]
            outputs.append(self._value(pixels, f16[0], *states))
        value, *renewed = (torch.stack(each)[None] for each in zip(*outputs, strict=True))
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
        shared = [features.f16[0], *self._skips(features.f8[0], features.f4[0])]
        outputs = []
        for position, each in enumerate(readout[0]):
            states = [] if hidden is None else [hidden[0, position]]
            outputs.append(self._decoder(*shared, each, *states))
        logits, *renewed = (torch.stack(each)[None] for each in zip(*outputs, strict=True))
        return logits[:, :, 0], renewed[0] if update_hidden and renewed else hidden


class _Loaded:
    """One part, ready to compute. Threads may call it, one after the other."""

    def __init__(self, directory: Path, name: str, outputs: int) -> None:
        import ncnn

        self._mat = ncnn.Mat
        self._outputs = [f"out{i}" for i in range(outputs)]
        self._lock = threading.Lock()
        self._net = ncnn.Net()
        # As many threads as PyTorch has. Half precision is for storage alone, and not asked for.
        self._net.opt.num_threads = torch.get_num_threads()
        self._net.opt.use_fp16_storage = self._net.opt.use_fp16_packed = False
        self._net.opt.use_fp16_arithmetic = self._net.opt.use_bf16_storage = False
        parameters, weights = _files(directory, name)
        if self._net.load_param(str(parameters)) or self._net.load_model(str(weights)):
            raise BackendError(
                f"ncnn cannot use {parameters}: remove {directory} and try again, or use another "
                "backend"
            )

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Tensors [C, H, W] to tensors [C', H', W']."""
        arrays = [np.ascontiguousarray(each.float().numpy()) for each in inputs]
        with self._lock:
            extractor = self._net.create_extractor()
            for i, array in enumerate(arrays):
                extractor.input(f"in{i}", self._mat(array))
            made = []
            for name in self._outputs:
                failed, output = extractor.extract(name)
                if failed:
                    raise BackendError(f"ncnn failed to compute {name} ({failed})")
                made.append(torch.from_numpy(np.array(output)))
        return made


# ---------------------------------------------------------------------------------------------
# Translation


class _Part(NamedTuple):
    """A part of the network as a function of tensors [1, C, H, W]."""

    name: str
    forward: Callable[..., Sequence[Tensor]]
    inputs: list[tuple[int, int]]
    """Channels and stride of each."""
    outputs: int


def _parts(network: XMem) -> list[_Part]:
    """Key encoder; what the decoder makes of the image alone; decoder and value encoder for one
    object, with the hidden state always renewed where there is one.
    """
    config, decoder, encoder = network.config, network.decoder, network.value_encoder
    c4, c8, c16 = config.key_encoder.channels
    d16, d8, _ = config.decoder_dims
    hidden = [(config.hidden_dim, STRIDE)] if config.hidden_dim else []

    def project_skips(f8: Tensor, f4: Tensor) -> list[Tensor]:
        return [decoder.up_16_8.skip_conv(f8), decoder.up_8_4.skip_conv(f4)]

    def decode(
        f16: Tensor, skip8: Tensor, skip4: Tensor, readout: Tensor, *hidden: Tensor
    ) -> list[Tensor]:
        g16 = decoder.fuser.fuse(torch.cat([f16, readout, *hidden], dim=1))
        g8 = decoder.up_16_8.join(skip8, g16)
        g4 = decoder.up_8_4.join(skip4, g8)
        logits = decoder.pred(F.relu(g4))
        made = [resize(logits, 4)]
        if decoder.hidden_update is not None:
            g4 = torch.cat([g4, logits], dim=1)
            made.append(decoder.hidden_update(g16, g8, g4, hidden[0]))
        return made

    def encode_value(pixels: Tensor, f16: Tensor, *hidden: Tensor) -> list[Tensor]:
        value = encoder.fuser.fuse(torch.cat([f16, encoder.features(pixels)], dim=1))
        made = [value]
        if encoder.hidden_reinforce is not None:
            made.append(encoder.hidden_reinforce(value, hidden[0]))
        return made

    f16, f8, f4 = (c16, 16), (c8, 8), (c4, 4)
    readout, states = (config.value_dim, STRIDE), 1 + len(hidden)
    return [
        _Part("key", network.encode_key, [(3, 1)], len(KeyFeatures._fields)),
        _Part("skips", project_skips, [f8, f4], 2),
        _Part("decoder", decode, [f16, (d16, 8), (d8, 4), readout, *hidden], states),
        _Part("value", encode_value, [(5, 1), f16, *hidden], states),
    ]


def _shapes(part: _Part, tokens: tuple[int, int]) -> list[list[int]]:
    """The shapes that a part's inputs have for an image of so many tokens."""
    h, w = (STRIDE * n for n in tokens)
    return [[1, channels, h // stride, w // stride] for channels, stride in part.inputs]


def _files(directory: Path, name: str) -> tuple[Path, Path]:
    """Where a part's parameters and its weights lie in a directory."""
    return directory / f"{name}.param", directory / f"{name}.bin"


def _translate(network: XMem, part: _Part, directory: Path) -> None:
    """Writes the part's files into a directory."""
    import pnnx

    first, second = (_shapes(part, tokens) for tokens in _EXAMPLE_TOKENS)
    traced_file = directory / f"{part.name}.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        examples = tuple(torch.rand(shape) for shape in first)
        torch.jit.trace(TraceablePart(network, part.forward), examples, check_trace=False).save(
            str(traced_file)
        )
    parameters, weights = _files(directory, part.name)
    arguments = {
        "inputshape": _listed(first),
        "inputshape2": _listed(second),
        "fp16": "0",
        "ncnnparam": str(parameters),
        "ncnnbin": str(weights),
        # What is not wanted. Without a name it would be written all the same.
        **dict.fromkeys(("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy"), os.devnull),
    }
    command = [pnnx.EXEC_PATH, str(traced_file), *(f"{k}={v}" for k, v in arguments.items())]
    status, said = _run(command, directory)
    traced_file.unlink()
    if status or not (parameters.is_file() and weights.is_file()):
        last = said.strip().splitlines()[-1:]
        raise BackendError(
            f"pnnx cannot translate the {part.name} part (status {status}: "
            f"{' '.join(last)}): use another backend"
        )


def _run(command: list[str], directory: Path) -> tuple[int, str]:
    """Returns a command's exit status and what it said. It never outlives the call.

    `subprocess.run` would not wait for the command's end where KeyboardInterrupt breaks it off.
    """
    process: subprocess.Popen[str] | None = None
    try:
        with undisturbed():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory
            )
        said, _ = process.communicate()
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        raise
    return process.returncode, said


def _listed(shapes: list[list[int]]) -> str:
    return ",".join(f"[{','.join(map(str, shape))}]" for shape in shapes)


@torch.no_grad()
def _check(part: _Part, directory: Path) -> None:
    """Holds a translation to what it was made of, at a size that it has not seen."""
    tokens = tuple(sum(sizes) for sizes in zip(*_EXAMPLE_TOKENS, strict=True))
    inputs = [torch.rand(shape) for shape in _shapes(part, (tokens[0], tokens[1]))]
    made = _Loaded(directory, part.name, part.outputs)(*(each[0] for each in inputs))
    for ours, theirs in zip(part.forward(*inputs), made, strict=True):
        same_shape = ours[0].shape == theirs.shape
        if not same_shape or _difference(ours[0], theirs) > _TOLERANCE:
            raise BackendError(
                f"ncnn computes the {part.name} part otherwise than PyTorch: use another backend"
            )


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """How much two tensors differ at most, in units of the largest value of ours."""
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1.0))
