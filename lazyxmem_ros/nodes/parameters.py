# SPDX-License-Identifier: Apache-2.0
"""Parameters declared from a table: text, range, choices and when they may change.

Those with a setting of the core behind them are made from it by `parameters_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from lazyxmem_ros.settings import Bounds, Changes, range_fault, settings_of
from lazyxmem_ros.spelling import nearest

Value: TypeAlias = "bool | int | float | str | Sequence[str]"

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
    tuple: ParameterType.PARAMETER_STRING_ARRAY,
}


QOS_OVERRIDES = "qos_overrides"
"""What ROS calls the parameters of a topic's quality of service: `qos_overrides.TOPIC.…`."""


class ParameterError(ValueError):
    """A parameter given at the start of a node that it cannot take; the text says why."""


@dataclass(frozen=True)
class ParameterSpec:
    """One row of a node's parameter table.

    bounds: inclusive limits of a number. choices: the allowed texts. The type is the default's;
    an empty tuple stands for a list of texts. heading: begins a new part of the parameter file.
    """

    name: str
    default: Value
    text: str
    bounds: Bounds | None = None
    choices: tuple[str, ...] = ()
    changes: Changes = Changes.ANY_TIME
    heading: str = ""

    def descriptor(self) -> ParameterDescriptor:
        """The ROS descriptor, for `ros2 param describe` and rqt."""
        description = ParameterDescriptor(
            name=self.name,
            type=_TYPES[type(self.default)],
            description=self.text,
            additional_constraints=self._constraints(),
            read_only=self.changes is Changes.NEVER,
        )
        if self.bounds is not None and isinstance(self.default, float):
            low, high = self.bounds
            description.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.bounds is not None:
            low, high = self.bounds
            description.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        return description

    def fault(self, value: Any) -> str | None:
        """Why the parameter cannot be `value`, or None when it can."""
        return range_fault(self.name, value, self.bounds, self.choices)

    def _constraints(self) -> str:
        parts = [f"one of: {', '.join(self.choices)}"] if self.choices else []
        if self.changes is not Changes.NEVER:
            parts.append(f"can be changed {self.changes.value}")
        return "; ".join(parts)


def parameters_of(config: type) -> tuple[ParameterSpec, ...]:
    """One row for each setting of a dataclass of settings, in their order."""
    return tuple(
        ParameterSpec(
            entry.name,
            entry.shown(entry.default),
            entry.text,
            bounds=entry.shown_bounds,
            choices=entry.choices,
            changes=entry.changes,
            heading=entry.heading,
        )
        for entry in settings_of(config)
    )


def _declare(node: Node, spec: ParameterSpec) -> Any:
    """Declares one row and returns the value that it has then."""
    if spec.default == ():
        # rclpy would take an empty list for one of bytes: the type is declared, the value is not.
        kind = Parameter.Type.STRING_ARRAY
        given = node.declare_parameter(spec.name, kind, spec.descriptor()).value
        return [] if given is None else list(given)
    if isinstance(spec.default, tuple):
        return list(node.declare_parameter(spec.name, list(spec.default), spec.descriptor()).value)
    return node.declare_parameter(spec.name, spec.default, spec.descriptor()).value


class Parameters:
    """A node's parameters after its table, with every change validated as a whole.

    validate: looks at all values together (name -> value) and returns why they cannot be, or None.
    apply: gets all values after a change that took place. may_reconfigure: whether parameters that
    change only while unconfigured may change now.
    """

    def __init__(
        self,
        node: Node,
        table: Sequence[ParameterSpec],
        *,
        validate: Callable[[Mapping[str, Any]], str | None] = lambda values: None,
        apply: Callable[[Mapping[str, Any]], None] = lambda values: None,
        may_reconfigure: Callable[[], bool] = lambda: True,
    ) -> None:
        """Declares the table on the node.

        Raises ParameterError where a value given at the start has the wrong type or is refused.
        """
        self._table = {spec.name: spec for spec in table}
        self._validate = validate
        self._apply = apply
        self._may_reconfigure = may_reconfigure
        try:
            self._values = {spec.name: _declare(node, spec) for spec in table}
        except ParameterException as error:
            raise ParameterError(str(error)) from error
        fault = self._fault(self._values)
        if fault:
            raise ParameterError(fault)
        # What is accepted here may still be refused, by another callback or by rclpy. Afterwards it
        # is known, but rclpy of ROS 2 Humble does not tell.
        self._told_afterwards = hasattr(node, "add_post_set_parameters_callback")
        node.add_on_set_parameters_callback(self._on_set)
        if self._told_afterwards:
            node.add_post_set_parameters_callback(self._take)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def values(self) -> dict[str, Any]:
        """All of the table's parameters, by name."""
        return dict(self._values)

    def _fault(self, values: Mapping[str, Any]) -> str | None:
        for name, value in values.items():
            fault = self._table[name].fault(value)
            if fault:
                return fault
        return self._validate(values)

    def _on_set(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        fault = self._fault_of_change(self._mine(changes))
        if fault is None and not self._told_afterwards:
            self._take(changes)
        return SetParametersResult(successful=fault is None, reason=fault or "")

    def _fault_of_change(self, mine: Mapping[str, Any]) -> str | None:
        if not mine:
            return None
        for name, value in mine.items():
            spec = self._table[name]
            fixed = spec.changes is Changes.UNCONFIGURED and not self._may_reconfigure()
            if fixed and value != self._values[name]:
                return f"{name} can be changed only while the node is unconfigured"
        return self._fault({**self._values, **mine})

    def _take(self, changes: list[Parameter[Any]]) -> None:
        """Take over a change that has been accepted."""
        mine = self._mine(changes)
        if mine:
            self._values = {**self._values, **mine}
            self._apply(self._values)

    def _mine(self, changes: list[Parameter[Any]]) -> dict[str, Any]:
        return {change.name: change.value for change in changes if change.name in self._table}


def unknown_parameters(node: Node, from_file: bool) -> list[str]:
    """What is wrong with the names of the parameters that a node was given at its start.

    To be asked when all are declared. from_file: whether a parameter file was among what was given.
    """
    given = list(node._parameter_overrides)
    if from_file and not given:
        return [
            f"no part of the parameter file is for {node.get_fully_qualified_name()}: its name "
            "there has to be this one, or /**"
        ]
    declared = node.list_parameters([], 0).names
    warnings = []
    for name in sorted(set(given) - set(declared)):
        if name.startswith(f"{QOS_OVERRIDES}."):  # declared once there is such a topic
            continue
        near = nearest(name, declared)
        hint = f"; did you mean {near}?" if near else ""
        warnings.append(f"there is no parameter {name}, so it changes nothing{hint}")
    return warnings


def parameter_rows(table: Sequence[ParameterSpec]) -> list[dict[str, str]]:
    """The table for people, one row per parameter, as in docs/topics_and_parameters.md."""
    rows = []
    for spec in table:
        allowed = ", ".join(spec.choices)
        if spec.bounds is not None:
            low, high = (_number(bound) for bound in spec.bounds)
            allowed = f">= {low}" if high == ".inf" else f"{low} .. {high}"
        rows.append(
            {
                "parameter": f"`{spec.name}`",
                "default": _default(spec.default),
                "meaning": spec.text,
                "may be": allowed,
                "changes": spec.changes.value,
            }
        )
    return rows


def _default(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return _number(value)
    return (value if isinstance(value, str) else ", ".join(value)) or "empty"


def _number(value: float) -> str:
    if isinstance(value, float) and math.isinf(value):
        return ".inf"
    return str(int(value)) if value == int(value) and abs(value) >= 1 else f"{value:g}"
