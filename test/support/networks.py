# SPDX-License-Identifier: Apache-2.0
"""Golden weights (filled in from the entries' names alone) and small networks."""

import zlib
from pathlib import Path

import numpy as np
import torch

from lazyxmem_ros.xmem import EncoderConfig, NetworkConfig, XMem

DATA = Path(__file__).parents[1] / "data"


def golden_entry(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One entry of the golden state dict, by the rules of its README."""
    *_, parent, last = name.split(".")
    if last == "num_batches_tracked":
        return torch.tensor(0)
    seed = zlib.crc32(name.encode())
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)
    if last == "running_mean":
        values = 0.1 * noise
    elif last == "running_var":
        values = 1 + 0.1 * np.abs(noise)
    elif len(shape) >= 2:
        values = noise * np.sqrt(1 / np.prod(shape[1:]))
    elif last == "weight" and (".bn" in name or "downsample.1" in name or parent.startswith("bn")):
        values = 1 + 0.05 * noise
    else:
        values = 0.05 * noise
    return torch.from_numpy(values.astype(np.float32))


def golden_state() -> dict[str, torch.Tensor]:
    """The golden state dict."""
    state = {}
    for line in (DATA / "xmem_state_dict.txt").read_text().splitlines():
        name, shape, _ = line.split()
        sizes = () if shape == "scalar" else tuple(map(int, shape.split("x")))
        state[name] = golden_entry(name, sizes)
    return state


def small_network() -> XMem:
    """Untrained and small, with every part that the full one has."""
    torch.manual_seed(0)
    encoder = EncoderConfig("basic", 8, (1, 1, 1), (8, 8, 16))
    return XMem(
        NetworkConfig(
            key_encoder=encoder,
            value_encoder=encoder,
            key_dim=8,
            value_dim=16,
            hidden_dim=8,
            decoder_dims=(16, 8, 8),
            hidden_update_dim=8,
        )
    ).eval()
