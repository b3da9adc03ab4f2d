"""Configuration as frozen dataclasses whose fields have a default, description, unit and range.

ROS parameters, launch arguments and command lines are made from these fields.
"""

from __future__ import annotations

import dataclasses
import reprlib
import typing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """The metadata of a configuration field."""

    description: str
    unit: str = ''
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    """Whether a running node may change it."""


def option(default: Any, description: str, **details: Any) -> Any:
    """A dataclass field with a default and a description; `details` are the other fields of Option."""
    return dataclasses.field(default=default, metadata={'option': Option(description, **details)})


def options(cls: type) -> dict[str, Option]:
    """The options of a configuration dataclass, by field name."""
    return {f.name: f.metadata['option'] for f in dataclasses.fields(cls) if 'option' in f.metadata}


def split(values: dict[str, Any], *classes: type) -> list[dict[str, Any]]:
    """Split a mapping by the configuration dataclasses whose fields its keys are.

    Raises:
        TypeError: a key is not a field of any.
    """
    fields = [[field.name for field in dataclasses.fields(cls)] for cls in classes]
    unknown = sorted(set(values).difference(*fields))
    if unknown:
        known = ', '.join(name for names in fields for name in names)
        raise TypeError(f'unknown option {", ".join(unknown)}; expected {known}')
    return [{name: values[name] for name in names if name in values} for names in fields]


def check(config: Any) -> None:
    """Check the values of a configuration; call this in __post_init__.

    Raises:
        ValueError: a value is wrong; the message names the field, its value and what is expected.
    """
    hints = typing.get_type_hints(type(config))
    for name, what in options(type(config)).items():
        value = getattr(config, name)
        if not _is_a(value, hints[name]):
            raise ValueError(f'{name}: expected {hints[name].__name__}, got {reprlib.repr(value)}')
        if what.choices and value not in what.choices:
            raise ValueError(f'{name}: {reprlib.repr(value)} is not one of {", ".join(what.choices)}')
        low, high = what.minimum, what.maximum
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            unit = f' {what.unit}' if what.unit else ''
            bounds = f'at least {low}' if high is None else f'at most {high}' if low is None else f'{low} to {high}'
            raise ValueError(f'{name}: {value} is out of range, expected {bounds}{unit}')


def _is_a(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(kind) or kind)
