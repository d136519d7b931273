# SPDX-License-Identifier: Apache-2.0
"""Weights files in and out: the published layouts, and the network's widths from shapes."""

from __future__ import annotations

import hashlib
import itertools
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lazyxmem_ros.basics import reason_of
from lazyxmem_ros.xmem.errors import CheckpointError
from lazyxmem_ros.xmem.network import (
    EFFICIENTNET_GROUPS,
    EFFICIENTNET_STAGES,
    EncoderConfig,
    NetworkConfig,
    XMem,
)

_WRAPPERS = ("network", "state_dict", "model")
"""Keys under which training checkpoints keep the state dict itself."""

_TELLING = (
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    MemoryError,
    OSError,
)
"""Errors that say what is wrong with a file; others say where its parsing stumbled."""

_SINGLE_OBJECT_STEM = 4
"""Input channels of a value encoder trained without the other objects' masks."""


def load_network(source: str | PathLike[str] | Mapping[str, Tensor]) -> XMem:
    """Read a published `.pth`, a `.safetensors` file or a state dict; the one door to a network.

    Widths are read from the shapes; the network is in evaluation mode. Raises `CheckpointError`,
    naming the first entry that does not fit or is not finite, before any parameter is touched.
    """
    name = "the state dict" if isinstance(source, Mapping) else str(source)
    raw = source if isinstance(source, Mapping) else read_state_dict(source)
    state = _widen_single_object(dict(raw))
    try:
        config = infer_config(state)
    except KeyError as error:
        raise CheckpointError(
            f"{name} does not hold an XMem network: it has no entry {error}"
        ) from None
    with torch.device("meta"), _Uninitialised():
        network = XMem(config)
    _check_shapes(network, state, name)
    check_values(state, name)
    owned = {
        key: value.to("cpu", torch.float32 if value.is_floating_point() else None, copy=True)
        for key, value in state.items()
    }
    network.load_state_dict(owned, assign=True)
    return network.eval()


class _Uninitialised(TorchFunctionMode):
    """Within, modules leave their parameters as they come: PyTorch would import its compiler, for
    seconds, to give values to those on "meta", which have none.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def check_values(state: Mapping[str, Tensor], name: str) -> None:
    """Raise CheckpointError for weights of which some are no numbers. name: of the file."""
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(
                f"{name} holds NaN or infinite numbers in {key}: its training diverged, or the "
                "file is damaged; take an earlier one"
            )


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` or a PyTorch file, which may be a training checkpoint.

    PyTorch files are read with `weights_only=True`: nothing in them is executed. Raises
    `CheckpointError` where the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"there is no weights file {path}: `lazyxmem weights list` shows what can be had"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file PyTorch raises whatever it stumbles over
        raise CheckpointError(
            f"{path} cannot be read as weights: {unreadable(error)}; fetch or copy the file again"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()
    ):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return loaded


def unreadable(error: Exception) -> str:
    """Why a weights file cannot be read, of the error that its reading has raised."""
    reason = reason_of(error)
    # Where PyTorch names that argument, it advises to execute what is in the file.
    if isinstance(error, _TELLING) and "weights_only" not in reason:
        return reason
    return (
        "it is damaged, or neither a .safetensors file nor one that PyTorch has written of tensors "
        "alone"
    )


def save_network(
    network: nn.Module,
    path: str | PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network's weights as float16 safetensors, with free-form metadata."""
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    safetensors.torch.save_file(state, path, metadata=dict(metadata or {}))


_digests: WeakKeyDictionary[XMem, str] = WeakKeyDictionary()


def weights_digest(network: XMem) -> str:
    """SHA-256 of all of a network's weights, hexadecimal; computed once for each network."""
    if network not in _digests:
        digest = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        _digests[network] = digest.hexdigest()
    return _digests[network]


def infer_config(state: Mapping[str, Tensor]) -> NetworkConfig:
    """The widths of the network from the shapes of its entries. Raises `KeyError`."""

    def outputs(name: str) -> int:
        return state[f"{name}.weight"].shape[0]

    hidden = "decoder.hidden_update.transform.weight" in state
    return NetworkConfig(
        key_encoder=infer_encoder(state, "key_encoder", ("res2", "layer2", "layer3")),
        value_encoder=infer_encoder(state, "value_encoder", ("layer1", "layer2", "layer3")),
        key_dim=outputs("key_proj.key_proj"),
        value_dim=outputs("value_encoder.fuser.block2.conv2"),
        hidden_dim=outputs("decoder.hidden_update.transform") // 3 if hidden else 0,
        decoder_dims=(
            outputs("decoder.fuser.block2.conv2"),
            outputs("decoder.up_16_8.out_conv.conv2"),
            outputs("decoder.up_8_4.out_conv.conv2"),
        ),
        hidden_update_dim=outputs("decoder.hidden_update.g16_conv")
        if hidden
        else NetworkConfig.hidden_update_dim,
    )


def infer_encoder(
    state: Mapping[str, Tensor], prefix: str, stages: tuple[str, str, str]
) -> EncoderConfig:
    """Kind and widths of an encoder whose entries begin with `prefix`. Raises `KeyError`."""
    stem = state[f"{prefix}.conv1.weight"].shape[0]
    if _is_inverted(state, f"{prefix}.{stages[0]}.0"):
        return _infer_inverted(state, prefix, stages, stem)
    bottleneck = f"{prefix}.{stages[0]}.0.conv3.weight" in state
    blocks = []
    for stage in stages:
        pattern = re.compile(rf"{re.escape(prefix)}\.{stage}\.(\d+)\.conv1\.weight")
        blocks.append(sum(pattern.fullmatch(name) is not None for name in state))
    widths = [state[f"{prefix}.{stage}.0.conv1.weight"].shape[0] for stage in stages]
    return EncoderConfig(
        block="bottleneck" if bottleneck else "basic",
        stem=stem,
        blocks=(blocks[0], blocks[1], blocks[2]),
        widths=(widths[0], widths[1], widths[2]),
    )


def _is_inverted(state: Mapping[str, Tensor], block: str) -> bool:
    """Whether a block's middle convolution is depthwise."""
    middle = state.get(f"{block}.conv2.weight")
    return f"{block}.conv3.weight" in state and middle is not None and middle.shape[1] == 1


def _infer_inverted(
    state: Mapping[str, Tensor], prefix: str, stages: tuple[str, str, str], stem: int
) -> EncoderConfig:
    """A block belongs to the group of its stage that has its kernel and expands as it does."""
    blocks, widths = [0] * len(EFFICIENTNET_GROUPS), [0] * len(EFFICIENTNET_GROUPS)
    for stage, groups in zip(stages, EFFICIENTNET_STAGES, strict=True):
        for number in itertools.count():
            block = f"{prefix}.{stage}.{number}"
            if f"{block}.conv3.weight" not in state:
                break
            kernel = state[f"{block}.conv2.weight"].shape[-1]
            expands = f"{block}.conv1.weight" in state
            for group in groups:
                plan = EFFICIENTNET_GROUPS[group]
                if (plan.kernel, plan.expansion > 1) == (kernel, expands):
                    blocks[group] += 1
                    widths[group] = state[f"{block}.conv3.weight"].shape[0]
    return EncoderConfig("inverted", stem, tuple(blocks), tuple(widths))


def _widen_single_object(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A single-object value encoder knows no other objects: they get a channel of zeros."""
    name = "value_encoder.conv1.weight"
    stem = state.get(name)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == _SINGLE_OBJECT_STEM:
        state[name] = torch.cat([stem, torch.zeros_like(stem[:, :1])], dim=1)
    return state


def _check_shapes(network: XMem, state: Mapping[str, Tensor], name: str) -> None:
    expected = network.state_dict()
    for entry, tensor in expected.items():
        if entry not in state:
            raise CheckpointError(
                f"{name} does not hold an XMem network: it has no entry {entry!r}"
            )
        if state[entry].shape != tensor.shape:
            raise CheckpointError(
                f"{name}: entry {entry!r} has shape {list(state[entry].shape)}, "
                f"expected {list(tensor.shape)}"
            )
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise CheckpointError(f"{name} has an entry that XMem does not know: {unknown[0]!r}")
