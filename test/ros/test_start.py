"""Signals while a node starts, and errors of rclpy itself, in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rosgraph_msgs.msg import Clock

MATCHER = 'from superpoint_ros.ros.start import matcher; print("starting", flush=True); matcher()'


LOGGING = """
import logging
from superpoint_ros.ros.matcher_node import MatcherNode
from superpoint_ros.ros.process import run

class Logging(MatcherNode):
    def activate(self):
        core = logging.getLogger('superpoint_ros.runtimes')
        core.info('chosen')
        core.warning('careful')
        core.info('prepared')
        core.debug('detail')
        self.ended.set_result(0)

print('starting', flush=True)
raise SystemExit(run(Logging))
"""
"""A matcher in which the core logs something, and which then ends."""


def start(domain, *arguments, program=MATCHER):
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    command = [sys.executable, '-c', program, '--ros-args', *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('delay', [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_signal_while_starting_ends_a_node_cleanly(domain, number, delay):
    process = start(domain)
    assert process.stdout.readline() == 'starting\n'
    time.sleep(0.1 + delay)  # the handlers are set at once, but after the line was printed
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 0, output
    assert 'Traceback' not in output
    assert 'cannot' not in output


def test_many_signals_end_a_node_cleanly(domain):
    process = start(domain, '-p', 'autostart:=true')
    assert process.stdout.readline() == 'starting\n'
    time.sleep(2)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 0, output
    assert 'Traceback' not in output


def test_messages_that_rclpy_chokes_on_do_not_end_a_node(domain, context):
    process = start(domain, '-p', 'use_sim_time:=true')
    node = rclpy.create_node('attacker', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        asking = node.create_client(GetParameters, '/superpoint_matcher/get_parameters')
        setting = node.create_client(SetParameters, '/superpoint_matcher/set_parameters')
        assert asking.wait_for_service(30)
        assert setting.wait_for_service(30)
        clock = node.create_publisher(Clock, '/clock', 10)
        end = time.monotonic() + 10
        while not clock.get_subscription_count() and time.monotonic() < end:
            time.sleep(0.05)
        message = Clock()
        message.clock.sec = -1
        clock.publish(message)
        value = ParameterValue(type=99)
        setting.call_async(SetParameters.Request(parameters=[Parameter(name='window', value=value)]))
        executor.spin_once(timeout_sec=0.5)
        answer = asking.call_async(GetParameters.Request(names=['window']))
        executor.spin_until_future_complete(answer, timeout_sec=30)
        assert process.poll() is None
        assert len(answer.result().values) == 1
    finally:
        node.destroy_node()
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)[0]
    assert process.returncode == 0, output
    assert output.count('unexpected error, continuing') >= 1


def test_the_log_of_the_core_is_that_of_the_node(domain):
    process = start(domain, program=LOGGING)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 0, output
    lines = [line.partition(' ')[::2] for line in output.splitlines() if 'superpoint_matcher' in line]
    assert [(level, text.rpartition(': ')[2]) for level, text in lines] == [
        ('[INFO]', 'chosen'),
        ('[WARN]', 'careful'),
        ('[INFO]', 'prepared'),
    ]
