# SPDX-License-Identifier: Apache-2.0
"""Errors of the evaluation; each message says what is wrong and what to do about it."""


class EvaluationError(ValueError):
    """Base of all that the evaluation raises on bad input; reading data raises DataError."""


class MetricError(EvaluationError):
    """Masks or scores that cannot be compared (shapes, dtypes, empty input)."""


class MethodError(EvaluationError):
    """An unknown method name or an impossible combination of settings."""
