# SPDX-License-Identifier: Apache-2.0
"""XMem in plain PyTorch: frames in, probabilities out."""

from lazyxmem_ros.xmem.backends import BACKENDS, with_backend
from lazyxmem_ros.xmem.checkpoint import load_network, save_network, weights_digest
from lazyxmem_ros.xmem.copies import MemoryState
from lazyxmem_ros.xmem.device import resolve_device, resolve_precision
from lazyxmem_ros.xmem.errors import (
    BackendError,
    CheckpointError,
    FrameError,
    MaskError,
    TrackerError,
    UnknownObjectError,
)
from lazyxmem_ros.xmem.frame import Frame
from lazyxmem_ros.xmem.memory import Memory
from lazyxmem_ros.xmem.memory_config import MemoryConfig
from lazyxmem_ros.xmem.network import EncoderConfig, NetworkConfig, XMem
from lazyxmem_ros.xmem.state import TrackerState
from lazyxmem_ros.xmem.state_check import StateError, check_state
from lazyxmem_ros.xmem.tracker import XMemTracker

__all__ = [
    "BACKENDS",
    "BackendError",
    "CheckpointError",
    "EncoderConfig",
    "Frame",
    "FrameError",
    "MaskError",
    "Memory",
    "MemoryConfig",
    "MemoryState",
    "NetworkConfig",
    "StateError",
    "TrackerError",
    "TrackerState",
    "UnknownObjectError",
    "XMem",
    "XMemTracker",
    "check_state",
    "load_network",
    "resolve_device",
    "resolve_precision",
    "save_network",
    "weights_digest",
    "with_backend",
]
