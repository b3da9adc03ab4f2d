"""Values of configurations are checked."""

from dataclasses import dataclass

import pytest

from superpoint_ros.config import check, option, options, split


@dataclass(frozen=True)
class Engine:
    """Something to configure."""

    power: float = option(1.5, 'How strong.', unit='kW', minimum=0, maximum=10, live=True)
    cylinders: int = option(4, 'How many.', minimum=1)
    fuel: str = option('diesel', 'What it burns.', choices=('diesel', 'petrol'))
    turbo: bool = option(False, 'Whether it has one.')
    name: str = option('', 'What it is called.')
    gears: tuple[str, ...] = option((), 'Which it has.')

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Wheels:
    """Another thing."""

    count: int = option(4, 'How many.')


def test_a_field_has_metadata():
    assert options(Engine)['power'].unit == 'kW'
    assert options(Engine)['power'].live
    assert not options(Engine)['fuel'].live


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'power': 11.0}, r'power: 11.0 is out of range, expected 0 to 10 kW'),
        ({'power': float('nan')}, r'power: nan is out of range'),
        ({'power': '3'}, r"power: expected float, got '3'"),
        ({'power': True}, r'power: expected float, got True'),
        ({'cylinders': 0}, r'cylinders: 0 is out of range, expected at least 1'),
        ({'cylinders': 2.0}, r'cylinders: expected int, got 2.0'),
        ({'cylinders': True}, r'cylinders: expected int, got True'),
        ({'fuel': 'coal'}, r"fuel: 'coal' is not one of diesel, petrol"),
        ({'fuel': 10_000 * 'x'}, r"fuel: 'x{5,20}\.\.\.x{5,20}' is not one of diesel, petrol"),
        ({'turbo': 10_000 * 'x'}, r"turbo: expected bool, got 'x{5,20}\.\.\.x{5,20}'$"),
        ({'turbo': 1}, r'turbo: expected bool, got 1'),
        ({'name': 3}, r'name: expected str, got 3'),
        ({'gears': 'one'}, r'gears: expected tuple, got'),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(ValueError, match=message):
        Engine(**values)


def test_right_values():
    engine = Engine(power=3, name='x', gears=('1', '2'))
    assert (engine.power, engine.cylinders, engine.name) == (3, 4, 'x')


def test_options_are_split_by_class():
    assert split({'count': 3, 'fuel': 'petrol'}, Engine, Wheels) == [{'fuel': 'petrol'}, {'count': 3}]
    with pytest.raises(TypeError, match=r'unknown option color; expected power, .*, count'):
        split({'color': 'red', 'count': 3}, Engine, Wheels)
