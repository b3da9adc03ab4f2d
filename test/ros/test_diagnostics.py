import tracemalloc

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from superpoint_ros.ros import diagnostics
from superpoint_ros.ros.diagnostics import Statistics


@pytest.fixture
def clock(monkeypatch):
    """A clock that is advanced by hand."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(diagnostics, 'time', made)
    return made


def test_rates_and_latencies_are_measured_over_the_last_seconds(clock):
    statistics = Statistics()
    for _ in range(100):  # 20 s at 10 Hz; every other message is dropped, the others take 20 ms
        received = statistics.receive()
        clock.now += 0.02
        statistics.publish(received)
        clock.now += 0.08
        statistics.receive()
        statistics.drop()
        clock.now += 0.1
    values = statistics.values()
    assert (values['rate in [Hz]'], values['rate out [Hz]']) == ('10.0', '5.0')
    assert (values['latency p50 [ms]'], values['latency p99 [ms]']) == ('20.0', '20.0')
    assert (values['received'], values['published'], values['dropped'], values['bad']) == ('200', '100', '100', '0')


def test_one_slow_frame_changes_only_p99(clock):
    statistics = Statistics()
    for number in range(50):
        received = statistics.receive()
        clock.now += 0.5 if number == 20 else 0.01
        statistics.publish(received)
    values = statistics.values()
    assert values['latency p50 [ms]'] == '10.0'
    assert float(values['latency p99 [ms]']) > 200


def test_a_failure_is_recent_for_a_while_and_remains_counted(clock):
    statistics = Statistics()
    assert not statistics.failing
    statistics.fail('too dark')
    assert statistics.failing
    clock.now += 10
    assert not statistics.failing
    assert (statistics.values()['bad'], statistics.values()['last error']) == ('1', 'too dark')


def test_counting_takes_no_memory_while_nobody_reads_the_figures(clock):
    statistics = Statistics()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            statistics.publish(statistics.receive())
            clock.now += 0.1
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 100_000
    assert statistics.values()['received'] == '20000'


def test_without_messages_there_are_no_latencies(clock):
    assert Statistics().values()['latency p50 [ms]'] == 'nan'
