# SPDX-License-Identifier: Apache-2.0
"""Sequences of the published implementation, and its settings under our names."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyxmem_ros.xmem import MemoryConfig

DATA = Path(__file__).parents[1] / "data"
TOLERANCE = 2e-3  # float16 storage of the golden probabilities alone costs 5e-4


def memory_config(published: Any) -> MemoryConfig:
    """The published settings under our names."""
    settings = ast.literal_eval(str(published))
    return MemoryConfig(
        memory_every=settings["mem_every"],
        deep_update_every=settings["deep_update_every"],
        long_term=settings["enable_long_term"],
        top_k=settings["top_k"],
        max_working_frames=settings.get("max_mid_term_frames", 10),
        min_working_frames=settings.get("min_mid_term_frames", 5),
        prototypes=settings.get("num_prototypes", 128),
        max_long_term_tokens=settings.get("max_long_term_elements", 10_000),
        keep_first_frames=1,
        told_frames=0,
        object_quota=0,
    )


def deviation(probabilities: torch.Tensor, golden: np.ndarray) -> float:
    expected = torch.from_numpy(golden[: len(probabilities)].astype(np.float32))
    return (probabilities - expected).abs().max().item()
