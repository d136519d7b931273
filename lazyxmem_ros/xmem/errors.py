# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with what the tracker is given."""


class TrackerError(ValueError):
    """Base of the tracker's errors. The tracker's state is what it was before the call."""


class FrameError(TrackerError):
    """An image or a frame cannot be used here."""


class MaskError(TrackerError):
    """A mask has the wrong size or type, or shows nothing, or its object id cannot be used."""


class UnknownObjectError(TrackerError):
    """An object id that the tracker does not follow (any more)."""


class CheckpointError(TrackerError):
    """A weights file cannot be read, or does not hold an XMem network."""


class BackendError(TrackerError):
    """The network cannot be computed by the backend that was asked for."""
