"""Parameters of both nodes: other names, types and values, set while a node works or before it is configured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.serialization import deserialize_message, serialize_message

from superpoint_ros.config import options
from superpoint_ros.ros import detector_config, matcher_config
from test.fuzz.live import Bench, both
from test.fuzz.runner import NUMBERS, FaultError, draw

CONFIGURATIONS = {b'd': detector_config.CONFIGURATIONS, b'm': matcher_config.CONFIGURATIONS}
FIXED = {'autostart', 'image_transport', 'geometry', 'qos_reliability', 'mask_topic'}
"""Parameters that decide which messages are good ones, or that cannot change."""

TEXTS = st.sampled_from(['', 'auto', 'left', 'left:right', '/left', 'a//b', '/dev/zero', '/', '.', 'x' * 10**5])
INTEGERS = st.sampled_from([n for n in NUMBERS if n < 2**63]) | st.integers(-3, 1000)
FLOATS = st.floats(0, 10) | st.floats()
STRINGS = TEXTS | st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=20)
BY_TYPE = {
    bool: st.builds(ParameterValue, type=st.just(1), bool_value=st.booleans()),
    int: st.builds(ParameterValue, type=st.just(2), integer_value=INTEGERS),
    float: st.builds(ParameterValue, type=st.just(3), double_value=FLOATS),
    str: st.builds(ParameterValue, type=st.just(4), string_value=STRINGS),
    tuple: st.builds(ParameterValue, type=st.just(9), string_array_value=st.lists(STRINGS, max_size=9)),
}
VALUES = st.one_of(*BY_TYPE.values()) | st.builds(ParameterValue, type=st.sampled_from([0, 5, 6, 7, 8]))
"""Types over 9 stop rclpy itself; test/ros/test_start.py sends one."""


def names(node: bytes) -> dict[str, type]:
    """The parameters of a node that are attacked, and their types."""
    fields = [field for cls in CONFIGURATIONS[node] for field in dataclasses.fields(cls) if field.name not in FIXED]
    return {field.name: type(field.default) for field in fields}


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Strategy of the node, whether it is configured, and a serialized request."""
    node = draw(st.sampled_from([b'd', b'm']))
    known = st.sampled_from([*names(node).items()])
    fitting = known.flatmap(lambda item: st.builds(Parameter, name=st.just(item[0]), value=BY_TYPE[item[1]]))
    any_ = st.builds(Parameter, name=known.map(lambda item: item[0]) | STRINGS, value=VALUES)
    request = SetParameters.Request(parameters=draw(st.lists(fitting | any_, min_size=1, max_size=3)))
    return node + draw(st.sampled_from([b'c', b'u'])) + serialize_message(request)


def attacks(seed: int) -> Iterator[bytes]:
    """The node, whether it is configured, and a serialized request."""
    return draw(requests(), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A detector and a matcher."""
    with both(folder) as nodes:
        defaults = {key: _values(bench, [*names(key)]) for key, bench in nodes.items()}

        def attack(data: bytes) -> tuple[bool, float]:
            key, bench = data[:1], nodes[data[:1]]
            return bench.attack(lambda: _set(bench, data[1:2] == b'u', data[2:], defaults[key]))

        yield attack


def _set(bench: Bench, unconfigured: bool, request: bytes, defaults: list[Parameter]) -> bool:
    """Set parameters, try to start with them, and set the defaults; returns whether all was accepted."""
    if unconfigured:
        bench.bring_to('unconfigured')
    accepted = _accepted(bench, deserialize_message(request, SetParameters.Request))
    if unconfigured:
        accepted = bench.change_state(1) and bench.change_state(3) and accepted
        bench.bring_to('unconfigured')
    live = [parameter for parameter in defaults if unconfigured or parameter.name in LIVE]
    if not _accepted(bench, SetParameters.Request(parameters=live)):
        raise FaultError('the defaults are refused')
    bench.bring_to('active')
    return accepted


LIVE = {name for classes in CONFIGURATIONS.values() for cls in classes for name, o in options(cls).items() if o.live}


def _accepted(bench: Bench, request: SetParameters.Request) -> bool:
    results = bench.call(SetParameters, 'set_parameters', request).results
    for result in results:
        if not result.successful and (not result.reason or len(result.reason) > 1000 or '\n' in result.reason):
            raise FaultError(f'the reason is not one sentence: {result.reason[:300]!r}')
    return all(result.successful for result in results)


def _values(bench: Bench, wanted: list[str]) -> list[Parameter]:
    values = bench.call(GetParameters, 'get_parameters', GetParameters.Request(names=wanted)).values
    return [Parameter(name=name, value=value) for name, value in zip(wanted, values, strict=True)]
