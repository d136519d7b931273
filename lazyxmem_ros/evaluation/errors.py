# SPDX-License-Identifier: Apache-2.0
"""Errors of the evaluation; each message says what is wrong and what to do about it."""


class EvaluationError(ValueError):
    """Base of everything the evaluation raises on bad input."""


class MetricError(EvaluationError):
    """Masks or scores that cannot be compared (shapes, dtypes, empty input)."""


class BagError(EvaluationError):
    """A rosbag2 bag that cannot be read or written."""


class DamagedBagError(BagError):
    """A bag whose storage is cut short or damaged."""


class DatasetError(EvaluationError):
    """A dataset, sequence or frame that cannot be read as its layout says."""


class MethodError(EvaluationError):
    """An unknown method name or an impossible combination of settings."""
