"""Parameters, lifecycle transitions and signals of both nodes."""

from __future__ import annotations

import dataclasses
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from operator import add
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.serialization import deserialize_message, serialize_message

from superpoint_ros.config import options
from superpoint_ros.ros import detector_config, matcher_config
from test.fuzz.attacks import NUMBERS, Attack, FaultError, Target
from test.fuzz.live import Bench, detector, matcher
from test.fuzz.processes import MAX_SECONDS, NodeProcess

CONFIGURATIONS = {'d': detector_config.CONFIGURATIONS, 'm': matcher_config.CONFIGURATIONS}
"""By the letter of a node, with which each attack begins."""
NODES = st.sampled_from([b'd', b'm'])
FIXED = {'autostart', 'image_transport', 'geometry', 'qos_reliability', 'mask_topic'}
"""Parameters that decide which messages are good ones, or that cannot change."""
NAMES = {
    node: {f.name: type(f.default) for cls in classes for f in dataclasses.fields(cls) if f.name not in FIXED}
    for node, classes in CONFIGURATIONS.items()
}
"""The parameters of a node that are attacked, and their types."""
LIVE = {name for classes in CONFIGURATIONS.values() for cls in classes for name, o in options(cls).items() if o.live}

TEXTS = st.sampled_from(['', 'auto', 'left', 'left:right', '/left', 'a//b', '/dev/zero', '/', '.', 'x' * 10**5])
INTEGERS = st.sampled_from([n for n in NUMBERS if n < 2**63]) | st.integers(-3, 1000)
STRINGS = TEXTS | st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=20)
BY_TYPE = {
    bool: st.builds(ParameterValue, type=st.just(1), bool_value=st.booleans()),
    int: st.builds(ParameterValue, type=st.just(2), integer_value=INTEGERS),
    float: st.builds(ParameterValue, type=st.just(3), double_value=st.floats(0, 10) | st.floats()),
    str: st.builds(ParameterValue, type=st.just(4), string_value=STRINGS | st.just('learned')),
    tuple: st.builds(ParameterValue, type=st.just(9), string_array_value=st.lists(STRINGS, max_size=9)),
}
VALUES = st.one_of(*BY_TYPE.values()) | st.builds(ParameterValue, type=st.sampled_from([0, 5, 6, 7, 8]))
"""Types over 9 stop rclpy itself; test/ros/test_start.py sends one."""


@st.composite
def changes(draw: st.DrawFn) -> bytes:
    """Strategy of the node, u if it is unconfigured or c, and a serialized request to set parameters."""
    node = draw(st.sampled_from('dm'))
    known = st.sampled_from([*NAMES[node].items()])
    fitting = known.flatmap(lambda item: st.builds(Parameter, name=st.just(item[0]), value=BY_TYPE[item[1]]))
    any_ = st.builds(Parameter, name=known.map(lambda item: item[0]) | STRINGS, value=VALUES)
    request = SetParameters.Request(parameters=draw(st.lists(fitting | any_, min_size=1, max_size=3)))
    return node.encode() + draw(st.sampled_from([b'c', b'u'])) + serialize_message(request)


def set_parameters(bench: Bench, data: bytes) -> bool:
    """Set parameters, try to start with them, and set the former values; returns whether all was accepted."""
    node, unconfigured = bench.process.name[0], data[:1] == b'u'
    names = [name for name in NAMES[node] if unconfigured or name in LIVE]
    values = call(bench, GetParameters, 'get_parameters', GetParameters.Request(names=names)).values
    former = [Parameter(name=name, value=value) for name, value in zip(names, values, strict=True)]
    if unconfigured:
        bring_to(bench, 'unconfigured')
    accepted = _accepted(bench, deserialize_message(data[1:], SetParameters.Request))
    if unconfigured:
        accepted = change_state(bench, 1) and change_state(bench, 3) and accepted
        bring_to(bench, 'unconfigured')
    if not _accepted(bench, SetParameters.Request(parameters=former)):
        raise FaultError('the former values are refused')
    bring_to(bench, 'active')
    return accepted


def _accepted(bench: Bench, request: SetParameters.Request) -> bool:
    results = call(bench, SetParameters, 'set_parameters', request).results
    for result in results:
        if not result.successful and (not result.reason or len(result.reason) > 1000 or '\n' in result.reason):
            raise FaultError(f'the reason is not one sentence: {result.reason[:300]!r}')
    return all(result.successful for result in results)


TRANSITION = st.integers(0, 4) | st.integers(1, 4) | st.sampled_from([5, 6, 7, 10, 99, 255])
TRANSITIONS = st.lists(TRANSITION, min_size=1, max_size=8).map(bytes)


def change_states(bench: Bench, data: bytes) -> bool:
    """Ask for transitions; returns whether all succeeded."""
    changed = [change_state(bench, number) for number in data]
    bring_to(bench, 'active')
    return all(changed)


def change_state(bench: Bench, transition: int) -> bool:
    """Ask for a transition; returns whether it succeeded."""
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(call(bench, ChangeState, 'change_state', request).success)


def bring_to(bench: Bench, wanted: str) -> None:
    """Bring the node to the state unconfigured or active; one that was shut down is started again."""
    steps = {'inactive': 2, 'active': 4} if wanted == 'unconfigured' else {'unconfigured': 1, 'inactive': 3}
    while (state := call(bench, GetState, 'get_state', GetState.Request()).current_state.label) != wanted:
        if state == 'finalized':
            bench.restart()
        elif not change_state(bench, steps[state]):
            raise FaultError(f'cannot leave the state {state}')


def call(bench: Bench, kind: type, name: str, request: Any) -> Any:
    """The response of a service of the node."""
    client = bench.node.create_client(kind, f'/superpoint_{bench.process.name}/{name}')
    try:
        bench.wait(client.service_is_ready, f'no service {name}')
        future = client.call_async(request)
        bench.wait(future.done, f'{name} does not answer')
        return future.result()
    finally:
        bench.node.destroy_client(client)


def on_either(action: Callable[[Bench, bytes], bool]) -> Callable[[Path], AbstractContextManager[Attack]]:
    """Gives a function that starts both nodes; `action` attacks the one that the first letter names."""

    @contextmanager
    def start(folder: Path) -> Iterator[Attack]:
        with detector(folder) as first, matcher(folder) as second:
            nodes = {b'd': first, b'm': second}
            yield lambda data: nodes[data[:1]].attack(action, data[1:])

    return start


DELAY = st.integers(0, 10) | st.integers(0, 200)
"""In 1/50 s."""
SIGNAL = st.tuples(st.sampled_from([signal.SIGINT, signal.SIGTERM]), DELAY).map(bytes)
SIGNALS = st.lists(SIGNAL, min_size=1, max_size=3).map(b''.join)


def send_signals(folder: Path, data: bytes) -> tuple[bool, float]:
    """Start a node, and send it signals after it handles them."""
    log = folder / 'log'
    log.unlink(missing_ok=True)
    process = NodeProcess('detector' if data[:1] == b'd' else 'matcher', log)
    while process.popen.poll() is None and not _handles_signals(process.popen.pid):
        time.sleep(0.01)
    for number, delay in zip(data[1::2], data[2::2], strict=True):
        time.sleep(delay / 50)
        process.popen.send_signal(number)
    code, text = process.wait(MAX_SECONDS), log.read_text()
    if code != 0 or 'Traceback' in text or 'cannot' in text:
        raise FaultError(f'exit code {code}: {text[-1500:]}')
    return True, 0.0


def _handles_signals(pid: int) -> bool:
    """Whether a process has begun to handle SIGTERM; before that, the interpreter itself starts."""
    caught = re.search(r'SigCgt:\s*(\w+)', Path(f'/proc/{pid}/status').read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


TARGETS = {
    'parameters': Target(changes(), on_either(set_parameters)),
    'lifecycle': Target(st.builds(add, NODES, TRANSITIONS), on_either(change_states)),
    'signals': Target(st.builds(add, NODES, SIGNALS), lambda folder: nullcontext(partial(send_signals, folder))),
}
