# SPDX-License-Identifier: Apache-2.0
"""What computes the convolutions: PyTorch itself, or OpenVINO or ncnn on a processor.

Memory, similarity and readout are PyTorch's and float32 always.
"""

from __future__ import annotations

import importlib.util

import torch

from lazyxmem_ros.extras import BACKENDS, MODULES, install_command
from lazyxmem_ros.xmem.device import resolve_device, resolve_precision
from lazyxmem_ros.xmem.errors import BackendError
from lazyxmem_ros.xmem.network import XMem
from lazyxmem_ros.xmem.translation import Say

_TITLES = {"openvino": "OpenVINO", "ncnn": "ncnn"}
"""Of the runtimes beside PyTorch; their extras have the same names."""


def with_backend(
    network: XMem,
    backend: str = "auto",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    say: Say = lambda _: None,
) -> XMem:
    """The network as a backend computes it; to be called once, before any tracker is made of it.

    Args:
        network: in evaluation mode; it is not changed.
        backend: "torch"; "openvino" or "ncnn", which compute on a processor alone; or "auto", the
            quickest for the device of those that are installed.
        device: as for `XMemTracker`.
        precision: likewise. What a processor has not, OpenVINO computes in float32, and ncnn
            whatever is asked for.
        say: is told what is chosen for want of another, and what takes long.

    Raises:
        ValueError: the device is unknown or not here, or the precision is unknown.
        BackendError: the backend is unknown, not installed, or not for this device.

    """
    if backend not in BACKENDS:
        raise BackendError(f'backend "{backend}" is unknown: use {", ".join(BACKENDS)}')
    place = resolve_device(device)
    if backend == "torch" or (backend == "auto" and place.type != "cpu"):
        return network
    if place.type != "cpu":
        raise BackendError(f"{backend} computes on the cpu, not on {place}: use backend torch")
    dtype = resolve_precision(precision, place)
    if backend != "auto":
        if not _installed(backend):
            raise BackendError(_advice(backend))
        return _made(backend, network, dtype, say)
    wanted = _quickest_first(dtype)
    if not _installed(wanted[0]):
        say(f"{_advice(wanted[0])}, and is the quickest on this processor")
    for name in filter(_installed, wanted):
        try:
            return _made(name, network, dtype, say)
        except BackendError as error:
            say(f"{_TITLES[name]} is passed over: {error}")
    return network


def _quickest_first(precision: torch.dtype) -> list[str]:
    """The runtimes for this processor. ncnn's float32 is the quicker one where vectors have 256
    bits at most; with longer ones it was not measured.
    """
    short_vectors = torch.backends.cpu.get_cpu_capability() == "AVX2"
    if short_vectors and precision == torch.float32:
        return ["ncnn", "openvino"]
    return ["openvino"]


def _installed(backend: str) -> bool:
    return all(importlib.util.find_spec(module) for module in MODULES[backend])


def _advice(backend: str) -> str:
    return f"{_TITLES[backend]} is not installed; {install_command(backend)} brings it"


def _made(backend: str, network: XMem, precision: torch.dtype, say: Say) -> XMem:
    if backend == "ncnn":
        from lazyxmem_ros.xmem.ncnn_network import NcnnNetwork

        return NcnnNetwork(network, say)
    from lazyxmem_ros.xmem.openvino_network import OpenVinoNetwork

    return OpenVinoNetwork(network, precision, say)
