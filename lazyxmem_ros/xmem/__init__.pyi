# SPDX-License-Identifier: Apache-2.0
from .backends import with_backend
from .checkpoint import load_network, save_network, weights_digest
from .copies import MemoryState
from .device import resolve_device, resolve_precision
from .errors import (
    BackendError,
    CheckpointError,
    FrameError,
    MaskError,
    TrackerError,
    UnknownObjectError,
)
from .frame import Frame
from .memory import Memory
from .memory_config import MemoryConfig
from .network import EncoderConfig, NetworkConfig, XMem
from .state import TrackerState
from .state_check import StateError, check_state
from .tracker import XMemTracker

__all__ = [
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
