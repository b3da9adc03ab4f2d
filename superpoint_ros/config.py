"""Configuration as frozen dataclasses: each field says its default, meaning, unit and range in one place.

ROS parameters, YAML files and command lines are made from these fields, so no default stands twice.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar('T')


@dataclass(frozen=True)
class Option:
    """What is known of a configuration field beside its name, type and default."""

    description: str
    unit: str = ''
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    """Whether a running node may change it."""


def option(default: Any, description: str, **details: Any) -> Any:
    """A dataclass field with a description; details are the further fields of Option."""
    return dataclasses.field(default=default, metadata={'option': Option(description, **details)})


def options(cls: type) -> dict[str, Option]:
    """The options of a configuration dataclass, by field name."""
    return {f.name: f.metadata['option'] for f in dataclasses.fields(cls) if 'option' in f.metadata}


def field_types(cls: type) -> dict[str, type]:
    """The type of each field of a configuration dataclass, resolved."""
    return typing.get_type_hints(cls)


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """A configuration from a mapping; an unknown key is an error, a missing one takes its default.

    Raises:
        ValueError: a key is unknown, or a value has the wrong type or is out of range.
    """
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f'{cls.__name__}: unknown option {", ".join(unknown)}; known are {", ".join(known)}')
    return cls(**values)


def split(values: dict[str, Any], *classes: type) -> list[dict[str, Any]]:
    """The part of a mapping that belongs to each of some configuration dataclasses.

    Raises:
        TypeError: a key is a field of none of them.
    """
    fields = [[field.name for field in dataclasses.fields(cls)] for cls in classes]
    unknown = sorted(set(values).difference(*fields))
    if unknown:
        known = ', '.join(name for names in fields for name in names)
        raise TypeError(f'unknown option {", ".join(unknown)}; known are {known}')
    return [{name: values[name] for name in names if name in values} for names in fields]


def check(config: Any) -> None:
    """Check a configuration's values against its options; call it in __post_init__.

    Raises:
        ValueError: one sentence that names the field, its value and what is allowed.
    """
    hints = field_types(type(config))
    for name, what in options(type(config)).items():
        value = getattr(config, name)
        if not _is_a(value, hints[name]):
            raise ValueError(f'{name}: expected {_name(hints[name])}, got {value!r}')
        if what.choices and value not in what.choices:
            raise ValueError(f'{name}: {value!r} is not one of {", ".join(what.choices)}')
        low, high = what.minimum, what.maximum
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            unit = f' {what.unit}' if what.unit else ''
            bounds = f'at least {low}' if high is None else f'at most {high}' if low is None else f'{low} to {high}'
            raise ValueError(f'{name}: {value} is out of range, expected {bounds}{unit}')


def _is_a(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_is_a(value, k) for k in typing.get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(kind) or kind)


def _name(kind: Any) -> str:
    return getattr(kind, '__name__', str(kind))
