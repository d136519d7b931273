# SPDX-License-Identifier: Apache-2.0
"""Errors of the evaluation; each message says what is wrong and what to do about it."""


class EvaluationError(ValueError):
    """Base of everything the evaluation raises on bad input, but for what its data raise."""


class MetricError(EvaluationError):
    """Masks or scores that cannot be compared (shapes, dtypes, empty input)."""


class MethodError(EvaluationError):
    """An unknown method name or an impossible combination of settings."""
