# SPDX-License-Identifier: Apache-2.0
"""Makes a tracker from a weights file in one call."""

from __future__ import annotations

from pathlib import Path

from lazyxmem_ros import weights
from lazyxmem_ros.lazy.calibration import iou_predictor_of
from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.tracker import LazyTracker
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network, with_backend


def open_tracker(
    weights_file: Path | None = None,
    config: LazyConfig | None = None,
    *,
    network: XMem | None = None,
    memory: MemoryConfig | None = None,
    device: str = "auto",
    max_internal_size: int = weights.EMBEDDED_INTERNAL_SIZE,
    precision: str = "auto",
    backend: str = "auto",
) -> LazyTracker:
    """A new tracker without objects, with the calibration that lies beside its weights.

    Args:
        weights_file: a checkpoint; None is the embedded tracker.
        config: when to ask, and what memory learns.
        network: the file's network, where it was loaded before; `backend` is not asked then.
        memory: bounds of the memory.
        device: "auto", "cpu", "cuda" or "cuda:N".
        max_internal_size: short side inside the tracker, pixels; 0 is the image's own.
        precision: "float32", "bfloat16", "float16", or "auto", bfloat16 where that is quick.
        backend: what computes the convolutions, as for `with_backend`.

    Raises:
        ValueError: the device is unknown or not here, or the precision is unknown.
        BackendError: the backend is not installed, or not for this device.
        WeightsError, CheckpointError: the file is missing, or holds another network.
        CalibrationError: the calibration beside it cannot be read.

    """
    file = weights.locate("") if weights_file is None else weights_file
    if network is None:
        network = with_backend(load_network(file), backend, device=device, precision=precision)
    tracker = XMemTracker(
        network,
        memory,
        device=device,
        max_internal_size=max_internal_size,
        precision=precision,
    )
    return LazyTracker(tracker, config, iou_predictor=iou_predictor_of(file))
