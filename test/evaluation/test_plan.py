# SPDX-License-Identifier: Apache-2.0
"""A plan that cannot be run is refused when it is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import plan_of

from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.evaluation.errors import EvaluationError, MethodError
from lazyxmem_ros.evaluation.methods import choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, GraphMode, TrackerSettings


def test_plans_are_checked(two_walks: Path, tiny_weights: Path) -> None:
    plan = plan_of(two_walks, tiny_weights, ["random"])
    with pytest.raises(MethodError, match="random needs lazy, which is not run"):
        replace(plan, methods=(plan.methods[-1],))
    with pytest.raises(EvaluationError, match="at least 1"):
        replace(plan, workers=0)


def test_only_the_tracker_asks_in_the_graph(tiny_weights: Path) -> None:
    settings = TrackerSettings(tiny_weights)
    with pytest.raises(MethodError, match=r"oracle is offline only: .* leave out --graph"):
        EvaluationPlan(
            sequences=(SceneSequence(),),
            methods=tuple(choose_methods(["oracle"])),
            tracker=settings,
            graph=GraphMode(),
        )
