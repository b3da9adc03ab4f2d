"""The launch files, where ROS 2 launch is installed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('launch', reason='needs launch, which comes with a ROS 2 installation and is not on PyPI')
pytest.importorskip('launch_ros', reason='needs launch_ros, which comes with a ROS 2 installation and is not on PyPI')

import rclpy
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from rclpy.executors import SingleThreadedExecutor

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
        ('demo', {'source', 'backend'}),
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
def test_wrong_arguments_are_said(text, kind, wanted):
    with pytest.raises(ValueError, match=f'argument name: {text!r} is not {wanted}'):
        launching.parse('name', text, kind)


@pytest.fixture
def prefix(tmp_path):
    """The package as it is installed, as far as launch looks at it."""
    index = tmp_path / 'share/ament_index/resource_index/packages'
    index.mkdir(parents=True)
    shutil.copy(ROOT / 'resource/superpoint_ros', index)
    shutil.copytree(ROOT / 'scripts', tmp_path / 'lib/superpoint_ros')
    (tmp_path / 'bin').mkdir()
    for name in ('detector', 'matcher'):
        executable = tmp_path / f'bin/superpoint_{name}'
        executable.write_text(f'#!{sys.executable}\nfrom superpoint_ros.ros.{name}_node import main\nmain()\n')
        executable.chmod(0o755)
    return tmp_path


def test_two_cameras_from_a_launch_file(context, domain, prefix, tiny_model):
    arguments = ('left:=infra1', 'right:=infra2', 'namespace:=robot', 'cameras:=infra1', 'max_keypoints:=77')
    path = os.pathsep.join([str(prefix), *filter(None, [os.environ.get('AMENT_PREFIX_PATH')])])
    process = subprocess.Popen(
        [sys.executable, '-c', LAUNCH, str(ROOT / 'launch/stereo.launch.py'), *arguments, f'model:={tiny_model}'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'AMENT_PREFIX_PATH': path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    node = rclpy.create_node('looks', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    wanted = {'/robot/infra1/features', '/robot/infra2/features', '/robot/matches', '/robot/infra1/tracks'}
    try:
        for _ in range(300):
            executor.spin_once(timeout_sec=0.1)
            seen = {topic for topic in wanted if node.count_publishers(topic)}
            if seen == wanted or process.poll() is not None:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        node.destroy_node()
        executor.shutdown()
    assert seen == wanted, output
    assert process.returncode == 0, output
    assert 'Traceback' not in output, output
