import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header, String

from superpoint_ros.ros import subscription
from superpoint_ros.ros.subscription import MatchedSubscription

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Bench:
    """A subscribing and a publishing node on one executor."""

    def __init__(self, context, *remaps):
        arguments = [argument for remap in remaps for argument in ('-r', remap)]
        cli = ['--ros-args', *arguments] if arguments else None
        self.listener = rclpy.create_node('listener', context=context, cli_args=cli)
        self.talker = rclpy.create_node('talker', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.listener)
        self.executor.add_node(self.talker)
        self.heard = []

    def subscribe(self, topic, reliability='auto'):
        return MatchedSubscription(self.listener, String, topic, lambda m: self.heard.append(m.data), reliability)

    def wait(self, condition, timeout=15):
        end = time.monotonic() + timeout
        while not (result := condition()) and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def reliabilities(self, topic):
        return [s.qos_profile.reliability for s in self.talker.get_subscriptions_info_by_topic(topic)]

    def close(self):
        self.executor.shutdown()
        self.listener.destroy_node()
        self.talker.destroy_node()


@pytest.fixture
def start(context):
    benches = []

    def starter(*remaps):
        benches.append(Bench(context, *remaps))
        return benches[-1]

    yield starter
    for bench in benches:
        bench.close()


def test_the_reliability_of_the_publishers_is_adopted(start):
    bench = start()
    bench.subscribe('follow')
    assert bench.reliabilities('follow') == []
    for number, qos in enumerate((RELIABLE, BEST_EFFORT, RELIABLE)):
        publisher = bench.talker.create_publisher(String, 'follow', qos)
        assert bench.wait(lambda qos=qos: bench.reliabilities('follow') == [qos.reliability])
        assert bench.wait(publisher.get_subscription_count)
        bench.wait(lambda: False, timeout=0.2)
        publisher.publish(String(data=str(number)))
        assert bench.wait(lambda number=number: str(number) in bench.heard)
        bench.talker.destroy_publisher(publisher)


@pytest.mark.parametrize('later', [False, True])
@pytest.mark.parametrize(('silent', 'speaking'), [(BEST_EFFORT, RELIABLE), (RELIABLE, BEST_EFFORT)])
def test_a_silent_publisher_does_not_change_a_subscription_that_receives(start, monkeypatch, silent, speaking, later):
    monkeypatch.setattr(subscription, 'SILENCE', 0.5)
    bench = start()
    topic = f'mixed_{later}_{speaking.reliability.name.lower()}'
    publisher = bench.talker.create_publisher(String, topic, speaking)
    bench.talker.create_timer(0.02, lambda: publisher.publish(String(data='here')))
    if not later:
        bench.talker.create_publisher(String, topic, silent)
        assert bench.wait(lambda: bench.listener.count_publishers(topic) == 2)
    subscribed = bench.subscribe(topic)
    assert bench.wait(lambda: bench.heard)
    if later:
        bench.talker.create_publisher(String, topic, silent)
    assert bench.wait(lambda: '2 publishers' in subscribed.trouble())
    used = set()
    bench.wait(lambda: used.update(bench.reliabilities(topic)), timeout=1.5)
    assert used == {speaking.reliability}


def test_each_reliability_is_tried_while_publishers_of_both_are_silent(start, monkeypatch):
    monkeypatch.setattr(subscription, 'SILENCE', 0.3)
    bench = start()
    for qos in (RELIABLE, BEST_EFFORT):
        bench.talker.create_publisher(String, 'silent', qos)
    bench.subscribe('silent')
    for reliability in (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE) * 2:
        assert bench.wait(lambda reliability=reliability: bench.reliabilities('silent') == [reliability])


def test_the_first_message_is_not_lost(start):
    bench = start()
    bench.subscribe('first')
    publisher = bench.talker.create_publisher(String, 'first', RELIABLE)
    assert bench.wait(publisher.get_subscription_count)
    publisher.publish(String(data='only'))
    assert bench.wait(lambda: bench.heard == ['only'])


def test_topics_are_remapped_only_once(start):
    bench = start('left:=right', 'right:=left')
    subscribed = bench.subscribe('left')
    assert subscribed.topic == '/right'
    publisher = bench.talker.create_publisher(String, 'right', RELIABLE)
    assert bench.wait(publisher.get_subscription_count)
    assert subscribed.publishers == 1


def test_an_incompatible_reliability_is_reported(start, monkeypatch):
    monkeypatch.setattr(subscription, 'SILENCE', 0.2)
    bench = start()
    subscribed = bench.subscribe('fixed', 'reliable')
    bench.talker.create_publisher(String, 'fixed', BEST_EFFORT)
    assert bench.wait(subscribed.trouble)
    assert 'a reliable subscription receives nothing from a best-effort publisher: use auto' in subscribed.trouble()


def test_trouble_is_logged_once_and_cleared_when_it_ends(start, monkeypatch, capfd):
    monkeypatch.setattr(subscription, 'SILENCE', 0.3)
    bench = start()
    subscribed = bench.subscribe('quiet')
    assert subscribed.trouble() == ''
    publisher = bench.talker.create_publisher(String, 'quiet', RELIABLE)
    assert bench.wait(subscribed.trouble)
    bench.wait(lambda: False, timeout=0.5)
    assert subscribed.trouble().endswith('is it running?')
    publisher.publish(String(data='here'))
    assert bench.wait(lambda: not subscribed.trouble())
    assert capfd.readouterr().err.count('/quiet has a publisher, but nothing has arrived') == 1


def test_a_topic_without_publisher_is_logged_once_with_the_topics_of_its_type(start, monkeypatch, capfd):
    monkeypatch.setattr(subscription, 'SILENCE', 0.3)
    bench = start()
    for name in ('left', 'right'):
        bench.talker.create_publisher(String, f'/camera/{name}', RELIABLE)
    bench.talker.create_publisher(Header, '/camera/header', RELIABLE)
    bench.listener.create_publisher(String, '/output', RELIABLE)
    bench.talker.create_subscription(String, '/unpublished', lambda _: None, RELIABLE)
    assert bench.wait(lambda: all(bench.listener.count_publishers(name) for name in ('/camera/right', '/output')))
    bench.subscribe('wrong')
    bench.wait(lambda: False, timeout=1.5)
    log = capfd.readouterr().err
    expected = 'nobody publishes /wrong (std_msgs/msg/String); published topics of this type: '
    assert log.count(expected) == 1
    named = log.split(expected)[1].splitlines()[0].split(', ')
    assert {'/camera/left', '/camera/right'} <= set(named)
    assert not {'/camera/header', '/output', '/unpublished'} & set(named)


def test_many_topics_of_the_type_are_not_all_named(start, monkeypatch, capfd):
    monkeypatch.setattr(subscription, 'SILENCE', 0.3)
    monkeypatch.setattr(subscription, 'NAMED', 2)
    bench = start()
    for index in range(4):
        bench.talker.create_publisher(Time, f'/clock_{index}', RELIABLE)
    assert bench.wait(lambda: all(bench.listener.count_publishers(f'/clock_{index}') for index in range(4)))
    subscribed = MatchedSubscription(bench.listener, Time, 'clocks', print)
    bench.wait(lambda: False, timeout=1.0)
    assert '(builtin_interfaces/msg/Time); published topics of this type: /clock_0, /clock_1 and 2 more\n' in (
        capfd.readouterr().err
    )
    subscribed.destroy()


def test_after_destroy_nothing_is_subscribed(start):
    bench = start()
    publisher = bench.talker.create_publisher(String, 'ended', RELIABLE)
    subscribed = bench.subscribe('ended')
    assert bench.wait(publisher.get_subscription_count)
    subscribed.destroy()
    assert bench.wait(lambda: publisher.get_subscription_count() == 0)
    bench.wait(lambda: False, timeout=0.3)
    assert publisher.get_subscription_count() == 0
