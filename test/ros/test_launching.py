"""The launch files, if ROS 2 launch is installed."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('launch', reason='needs launch, which comes with a ROS 2 installation and is not on PyPI')
pytest.importorskip('launch_ros', reason='needs launch_ros, which comes with a ROS 2 installation and is not on PyPI')

import rclpy
from launch import LaunchContext
from launch.actions import LogInfo, OpaqueFunction
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import PointCloud2

from superpoint_ros.config import options
from superpoint_ros.ros import detector_config, launching, matcher_config

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = {name for cls in detector_config.CONFIGURATIONS for name in options(cls)}
MATCHER = {name for cls in matcher_config.CONFIGURATIONS for name in options(cls)}

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

source = PythonLaunchDescriptionSource(sys.argv[1])
arguments = [argument.split(':=', 1) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [
        ('detector', DETECTOR),
        ('matcher', MATCHER),
        ('stereo', (DETECTOR | MATCHER) - {'pairs'} | {'left', 'right'}),
        ('frontend', (DETECTOR | MATCHER) | {'bag', 'source', 'rate'}),
    ],
)
def test_every_parameter_is_an_argument_with_a_description(name, parameters):
    description = get_launch_description_from_python_launch_file(str(ROOT / f'launch/{name}.launch.py'))
    arguments = {argument.name: argument.description for argument in description.get_launch_arguments()}
    assert parameters <= set(arguments)
    assert all(len(text) > 10 for text in arguments.values())


@pytest.mark.parametrize(
    ('text', 'kind', 'value'),
    [
        ('left,right', tuple[str, ...], ['left', 'right']),
        ('["a:b", "b:c"]', tuple[str, ...], ['a:b', 'b:c']),
        ('left, right,', tuple[str, ...], ['left', 'right']),
        ('[]', tuple[str, ...], []),
        ('1', float, 1.0),
        ('12', int, 12),
        ('true', bool, True),
        ('0', str, '0'),
    ],
)
def test_arguments_become_parameters_of_the_right_type(text, kind, value):
    parsed = launching.parse('name', text, kind).value
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(('text', 'kind', 'wanted'), [('yes please', bool, 'true or false'), ('x', int, 'an integer')])
def test_wrong_arguments_are_named(text, kind, wanted):
    with pytest.raises(ValueError, match=f'argument name: expected {wanted}, got {text!r}'):
        launching.parse('name', text, kind)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'params_file': '/nowhere.yaml'}, "argument params_file: no such file: '/nowhere.yaml'"),
        ({'log_level': 'loud'}, "argument log_level: expected one of debug, info, warn, error, fatal, got 'loud'"),
    ],
)
def test_arguments_that_launch_does_not_check_are_checked(given, message):
    description = launching.nodes_description({'superpoint_detector': detector_config.CONFIGURATIONS}, {})
    context = LaunchContext()
    context.launch_configurations.update({argument.name: '' for argument in description.get_launch_arguments()} | given)
    with pytest.raises(ValueError, match=message):
        description.entities[-1].execute(context)


@pytest.mark.parametrize('name', ['treshold', 'max_keypoint'])
def test_a_misspelled_argument_is_logged_with_the_right_spelling(name):
    description = launching.nodes_description({'superpoint_detector': detector_config.CONFIGURATIONS}, {})
    context = LaunchContext()
    context.launch_configurations.update({argument.name: '' for argument in description.get_launch_arguments()})
    context.launch_configurations.update({name: '1', 'ros_namespace': 'robot', 'world': 'office'})
    actions = description.entities[-1].execute(context)
    [logged] = [action for action in actions if isinstance(action, LogInfo)]
    assert f"argument '{name}' is not known, did you mean" in perform_substitutions(context, logged.msg)


def test_a_shared_argument_shows_the_text_of_each_node():
    description = get_launch_description_from_python_launch_file(str(ROOT / 'launch/frontend.launch.py'))
    texts = {argument.name: argument.description for argument in description.get_launch_arguments()}
    assert 'superpoint_detector: Library that runs the network' in texts['backend']
    assert 'superpoint_matcher: Library that runs a learned matcher' in texts['backend']
    assert texts['autostart'].count('Configure and activate') == 1


def test_the_log_level_reaches_every_node():
    description = get_launch_description_from_python_launch_file(str(ROOT / 'launch/frontend.launch.py'))
    context = LaunchContext()
    given = {'source': '0', 'rate': '30.0', 'log_level': 'debug'}
    context.launch_configurations.update({argument.name: '' for argument in description.get_launch_arguments()} | given)
    functions = [entity for entity in description.entities if isinstance(entity, OpaqueFunction)]
    nodes = [action for function in functions for action in function.execute(context) if isinstance(action, Node)]
    assert len(nodes) == 3
    for node in nodes:
        words = [perform_substitutions(context, word) for word in node.cmd[1:]]
        assert words[words.index('--log-level') + 1] == 'debug'


@pytest.fixture
def prefix(tmp_path):
    """The parts of an installed package that launch needs."""
    index = tmp_path / 'share/ament_index/resource_index/packages'
    index.mkdir(parents=True)
    shutil.copy(ROOT / 'resource/superpoint_ros', index)
    shutil.copytree(ROOT / 'scripts', tmp_path / 'lib/superpoint_ros')
    (tmp_path / 'bin').mkdir()
    modules = {'camera': 'demo.camera', 'detector': 'ros.detector_node', 'matcher': 'ros.matcher_node'}
    for name, module in modules.items():
        executable = tmp_path / f'bin/superpoint_{name}'
        executable.write_text(f'#!{sys.executable}\nfrom superpoint_ros.{module} import main\nmain()\n')
        executable.chmod(0o755)
    player = tmp_path / 'bin/ros2'
    player.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/played\n')
    player.chmod(0o755)
    return tmp_path


@contextmanager
def launched(file, arguments, prefix, domain, context):
    """Runs a launch file; yields a node to listen with and a function that waits, and stops both."""
    paths = {
        'AMENT_PREFIX_PATH': os.pathsep.join([str(prefix), *filter(None, [os.environ.get('AMENT_PREFIX_PATH')])]),
        'PATH': os.pathsep.join([str(prefix / 'bin'), os.environ['PATH']]),
    }
    process = subprocess.Popen(
        [sys.executable, '-c', LAUNCH, str(ROOT / 'launch' / file), *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain), **paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    node = rclpy.create_node('looks', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def wait(done):
        for _ in range(300):
            executor.spin_once(timeout_sec=0.1)
            if done() or process.poll() is not None:
                break
        return done()

    try:
        yield node, wait
    finally:
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
            print(output)
        finally:
            process.kill()
            node.destroy_node()
            executor.shutdown()
    assert process.returncode == 0
    assert 'Traceback' not in output


def test_the_stereo_launch_file_starts_detector_and_matcher(context, domain, prefix, tiny_model):
    arguments = ('left:=infra1', 'right:=infra2', 'namespace:=robot', 'cameras:=infra1', f'model:={tiny_model}')
    wanted = {'/robot/infra1/features', '/robot/infra2/features', '/robot/matches', '/robot/infra1/tracks'}
    with launched('stereo.launch.py', arguments, prefix, domain, context) as (node, wait):
        assert wait(lambda: all(node.count_publishers(topic) for topic in wanted))


def test_the_frontend_launch_file_starts_nodes_bag_and_camera(context, domain, prefix, tiny_model, tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 256, (96, 128), np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), picture)
    arguments = ('namespace:=robot', 'image:=camera', f'source:={folder}', 'rate:=10', 'bag:=drive')
    received = []
    with launched(
        'frontend.launch.py', (*arguments, 'threshold:=0.0', f'model:={tiny_model}'), prefix, domain, context
    ) as (node, wait):
        node.create_subscription(PointCloud2, '/robot/matches', received.append, 5)
        assert wait(lambda: received and node.count_publishers('/robot/camera'))
    assert (prefix / 'played').read_text().split() == ['bag', 'play', '--delay', '5', 'drive']
