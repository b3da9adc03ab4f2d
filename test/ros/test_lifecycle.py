import time
from dataclasses import dataclass

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger

from superpoint_ros.config import check, option
from superpoint_ros.ros.lifecycle import ManagedNode
from superpoint_ros.ros.parameters import read

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@dataclass(frozen=True)
class Config:
    gain: float = option(0.5, 'Gain.', maximum=1.0, live=True)
    offset: float = option(0.5, 'Offset.', maximum=1.0, live=True)
    autostart: bool = option(False, 'Start by itself.')

    def __post_init__(self):
        check(self)


class Node(ManagedNode):
    """Records what it is asked to do."""

    def __init__(self):
        super().__init__('managed', (Config,))
        self.publisher = self.create_lifecycle_publisher(String, 'managed', 1)
        self.calls = []
        self.broken = False

    def configure(self):
        self.calls.append('configure')
        if self.broken:
            raise ValueError('it is broken')

    def activate(self):
        self.calls.append('activate')

    def deactivate(self):
        self.calls.append('deactivate')

    def cleanup(self):
        self.calls.append('cleanup')

    def apply_parameters(self):
        self.calls.append(read(self, Config))


@pytest.fixture
def make(domain):
    rclpy.init(domain_id=domain)
    nodes = []

    def maker():
        nodes.append(Node())
        return nodes[-1]

    yield maker
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


@pytest.mark.parametrize('transition', ['configure', 'activate'])
def test_a_transition_that_fails_leaves_nothing_behind(make, transition):
    node = make()
    if transition == 'activate':
        assert node.trigger_configure() == SUCCESS

    def fail():
        node.create_publisher(String, 'made', 1)
        node.create_subscription(String, 'made', lambda _: None, 1)
        node.create_service(Trigger, 'made', print)
        node.create_timer(1.0, print)
        raise ValueError('it is broken')

    setattr(node, transition, fail)
    kinds = 'publishers', 'subscriptions', 'services', 'timers'
    before = {kind: list(getattr(node, kind)) for kind in kinds}
    for _ in range(3):
        assert getattr(node, f'trigger_{transition}')() == FAILURE
    assert {kind: list(getattr(node, kind)) for kind in kinds} == before


def test_managed_publishers_follow_the_transitions(make):
    node = make()
    assert node.trigger_configure() == SUCCESS
    assert not node.publisher.is_activated
    assert node.trigger_activate() == SUCCESS
    assert node.publisher.is_activated
    assert node.trigger_deactivate() == SUCCESS
    assert not node.publisher.is_activated
    assert node.trigger_cleanup() == SUCCESS
    assert node.calls == ['configure', 'activate', 'deactivate', 'cleanup']


def test_a_failed_transition_cleans_up_and_can_be_repeated(make):
    node = make()
    node.broken = True
    assert node.trigger_configure() == FAILURE
    assert node.calls == ['configure', 'cleanup']
    node.broken = False
    assert node.trigger_configure() == SUCCESS


def test_destroying_an_active_node_deactivates_and_cleans_up(make):
    node = make()
    node.trigger_configure()
    node.trigger_activate()
    node.destroy_node()
    assert node.calls == ['configure', 'activate', 'deactivate', 'cleanup']


def test_a_node_that_cannot_stop_working_reports_it_and_releases_nothing(make):
    node = make()
    node.trigger_configure()
    node.trigger_activate()

    def time_out():
        raise TimeoutError('the message in progress takes longer than 5 s; try again later')

    deactivate, node.deactivate = node.deactivate, time_out
    assert node.trigger_deactivate() == FAILURE
    [status] = node._report()
    assert status.level == DiagnosticStatus.ERROR
    assert 'takes longer than 5 s; try again later' in status.message
    node.trigger_shutdown()
    assert 'cleanup' not in node.calls
    node.deactivate = deactivate
    node.destroy_node()
    assert node.calls[-2:] == ['deactivate', 'cleanup']


def test_live_parameters_are_applied_together_after_all_were_accepted(make):
    node = make()
    node.set_parameters([Parameter('gain', value=0.1)])
    assert node.calls == [], 'configure reads it'
    node.trigger_configure()
    node.calls.clear()
    changes = [Parameter('gain', value=0.2), Parameter('offset', value=2.0)]
    assert not node.set_parameters_atomically(changes).successful
    assert node.calls == []
    changes[1] = Parameter('offset', value=0.3)
    assert node.set_parameters_atomically(changes).successful
    assert node.calls == [Config(gain=0.2, offset=0.3)]


def test_live_parameters_are_applied_where_rclpy_has_no_callback_after_the_change(make, monkeypatch):
    monkeypatch.delattr(rclpy.node.Node, 'add_post_set_parameters_callback')
    node = make()
    node.trigger_configure()
    node.calls.clear()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + 10
    while not node.calls and time.monotonic() < end:
        assert node.set_parameters([Parameter('gain', value=0.2)])[0].successful
        executor.spin_once(timeout_sec=0.1)
    assert Config(gain=0.2) in node.calls
    executor.shutdown(timeout_sec=5)


def spin_until(node, condition):
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown(timeout_sec=5)
    return condition()


@pytest.fixture
def given(domain):
    """Starts ROS with parameters from the command line."""
    nodes = []

    def maker(*parameters, broken=False):
        rclpy.init(domain_id=domain, args=['--ros-args', *(word for p in parameters for word in ('-p', p))])
        nodes.append(Node())
        nodes[0].broken = broken
        return nodes[0]

    yield maker
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


def test_a_node_starts_itself_in_any_executor(given):
    node = given('autostart:=true')
    assert spin_until(node, lambda: node.active)
    assert node.calls == ['configure', 'activate']
    assert not node.ended.done()


def test_a_failed_start_is_reported(given):
    node = given('autostart:=true', broken=True)
    assert spin_until(node, node.ended.done)
    assert node.ended.result() == 1
    assert node.calls == ['configure', 'cleanup']


def test_integers_are_taken_where_a_float_is_meant(given):
    node = given('gain:=1')
    assert read(node, Config).gain == 1.0
    assert node.set_parameters([Parameter('gain', value=0)])[0].successful
    assert read(node, Config).gain == 0.0
    assert not node.set_parameters([Parameter('gain', value=2)])[0].successful


def test_unexpected_errors_are_counted_and_reported_with_any_text(make):
    node = make()
    assert len(node._report()) == 1
    node.log_unexpected(RuntimeError('\ud800' + 'x' * 10_000))
    status = node._report()[-1]
    assert status.message.startswith('1 unexpected errors; the last: RuntimeError')
    assert len(status.message) < 500
    node.create_publisher(type(status), 'status', 1).publish(status)
