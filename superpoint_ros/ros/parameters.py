"""ROS parameters from configuration dataclasses: each field is a parameter of the same name, type and default."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from superpoint_ros.config import Option, options
from superpoint_ros.ros.diagnostics import printable

T = TypeVar('T')

_TYPES: dict[Any, Parameter.Type] = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple[str, ...]: Parameter.Type.STRING_ARRAY,
}


def declare(node: Node, configurations: Sequence[type], read_only: Collection[str] = ()) -> None:
    """Declare a parameter for each option of configuration dataclasses, and warn about unknown given parameters.

    Those in `read_only` can be set only at the start.

    Raises:
        rclpy.exceptions.ParameterException: a value from the command line or a file has the wrong type or is out of
            range.
        ValueError: the same, where only the configuration can check the value.
    """
    given = node._parameter_overrides  # rclpy has no public way to change or list the given parameters
    given.update({parameter.name: parameter for parameter in with_floats([*given.values()], configurations)})
    node.declare_parameters(
        '',
        [
            (name, _default(getattr(cls, name), hints[name]), _describe(hints[name], what, name in read_only))
            for cls in configurations
            for hints in [typing.get_type_hints(cls)]
            for name, what in options(cls).items()
        ],
    )
    known = [name for cls in configurations for name in options(cls)]
    for name in known:
        if node.get_parameter_or(name).value is None:
            node.set_parameters([Parameter(name, Parameter.Type.STRING_ARRAY, [])])
    for name in given:
        if not node.has_parameter(name):
            near = difflib.get_close_matches(name, known, 1)
            node.get_logger().warning(f'parameter {name!r} is not known{f", did you mean {near[0]}?" if near else ""}')
    for cls in configurations:
        read(node, cls)


def with_floats(changes: Sequence[Parameter[Any]], configurations: Sequence[type]) -> list[Parameter[Any]]:
    """The parameters with integers as floats where a configuration has a float: people write `threshold: 0`."""
    floats = {name for cls in configurations for name, kind in typing.get_type_hints(cls).items() if kind is float}
    return [
        Parameter(change.name, Parameter.Type.DOUBLE, float(change.value))
        if change.name in floats and change.type_ == Parameter.Type.INTEGER
        else change
        for change in changes
    ]


def read(node: Node, configuration: type[T]) -> T:
    """The configuration in a node's parameters.

    Raises:
        ValueError: one sentence that names the wrong value and what is allowed.
    """
    return configuration(**{name: _plain(node.get_parameter(name).value) for name in options(configuration)})


def check_change(
    node: Node, changes: Sequence[Parameter[Any]], configurations: Sequence[type], configured: bool
) -> SetParametersResult:
    """Whether a change of parameters is allowed, or why not; only live ones may change while a node is configured."""
    values = {parameter.name: _plain(parameter.value) for parameter in changes}
    try:
        for cls in configurations:
            known = options(cls)
            mine = {name: value for name, value in values.items() if name in known}
            fixed = [name for name in mine if configured and not known[name].live]
            if fixed:
                raise ValueError(
                    f'{fixed[0]}: cannot change while the node is configured; deactivate and clean it up first'
                )
            dataclasses.replace(read(node, cls), **mine)
    except ValueError as error:
        return SetParametersResult(successful=False, reason=printable(str(error)))
    return SetParametersResult(successful=True)


def _default(value: Any, kind: Any) -> Any:
    # rclpy takes [] for a byte array, so an empty list is declared by its type and set afterwards.
    return _TYPES[kind] if value == () else value


def _describe(kind: Any, what: Option, read_only: bool) -> ParameterDescriptor:
    constraints = [f'One of: {", ".join(what.choices)}.'] if what.choices else []
    if not what.live and not read_only:
        constraints.append('Read when the node is configured; cannot change while it is configured.')
    described = ParameterDescriptor(
        description=f'{what.description} [{what.unit}]' if what.unit else what.description,
        additional_constraints=' '.join(constraints),
        read_only=read_only,
    )
    low, high = what.minimum, what.maximum
    if kind is float and (low is not None or high is not None):
        start, end = -math.inf if low is None else float(low), math.inf if high is None else float(high)
        described.floating_point_range = [FloatingPointRange(from_value=start, to_value=end)]
    if kind is int and (low is not None or high is not None):
        first, last = -(2**63) if low is None else int(low), 2**63 - 1 if high is None else int(high)
        described.integer_range = [IntegerRange(from_value=first, to_value=last)]
    return described


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
