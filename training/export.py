# SPDX-License-Identifier: Apache-2.0
"""Weights for shipping: float16 safetensors with what made them in the metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from torch import nn

from lazyxmem_ros.correction.refiner_network import RefinerNetwork
from lazyxmem_ros.xmem import XMem, save_network

ABOUT = {
    "licence": "Apache-2.0",
    "training_data": (
        "clips composed of 24 sequences of DAVIS 2016's training set, BSDS500 and "
        "clothing-co-parsing photographs, scikit-image samples and procedural textures"
    ),
}


def save_tracker(network: XMem, path: Path, *, steps: int) -> None:
    """Writes a tracker, with the widths that make it; an interruption leaves an old file whole."""
    config = json.dumps(dataclasses.asdict(network.config))
    _save(network, path, {"config": config, "steps": str(steps)})


def save_refiner(network: RefinerNetwork, path: Path, *, steps: int) -> None:
    """Writes a refiner; an interruption leaves an old file whole."""
    _save(network, path, {"steps": str(steps)})


def _save(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    partial = path.with_suffix(".partial")
    save_network(network, partial, metadata={**metadata, **ABOUT})
    os.replace(partial, path)
