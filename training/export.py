# SPDX-License-Identifier: Apache-2.0
"""Weights for shipping: float16 safetensors with what made them in the metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from lazyxmem_ros.xmem import XMem, save_network

LICENCE = "Apache-2.0"
TRAINING_DATA = (
    "clips composed of BSDS500 photographs, seven DAVIS 2016 validation sequences, "
    "scikit-image samples and procedural textures"
)


def save_weights(network: XMem, path: Path, *, steps: int) -> None:
    """Writes the network as float16 safetensors; an interruption leaves an old file whole."""
    metadata = {
        "config": json.dumps(dataclasses.asdict(network.config)),
        "steps": str(steps),
        "licence": LICENCE,
        "training_data": TRAINING_DATA,
    }
    partial = path.with_suffix(".partial")
    save_network(network, partial, metadata=metadata)
    os.replace(partial, path)
