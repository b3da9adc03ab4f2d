import dataclasses

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy

from superpoint_ros import resources
from superpoint_ros.config import options
from superpoint_ros.ros import parameters
from superpoint_ros.ros.detector_config import CONFIGURATIONS


@pytest.fixture
def written():
    return yaml.safe_load(resources.find('config/detector.yaml').read_text())['/**']['ros__parameters']


def test_the_file_has_every_parameter_of_the_node_with_its_default_and_no_other(context, written):
    node = rclpy.create_node('superpoint_detector', context=context)
    own = set(node.get_parameters_by_prefix(''))
    parameters.declare(node, CONFIGURATIONS)
    declared = {name: p.value for name, p in node.get_parameters_by_prefix('').items() if name not in own}
    node.destroy_node()
    assert written == declared
    assert {name: type(value) for name, value in written.items()} == {n: type(v) for n, v in declared.items()}


def test_the_node_reads_the_file_as_its_defaults(context, capfd):
    arguments = ['--ros-args', '--params-file', str(resources.find('config/detector.yaml'))]
    node = rclpy.create_node('superpoint_detector', context=context, cli_args=arguments)
    parameters.declare(node, CONFIGURATIONS)
    for cls in CONFIGURATIONS:
        assert parameters.read(node, cls) == cls()
    node.destroy_node()
    assert 'is not known' not in capfd.readouterr().err


def test_every_parameter_has_a_comment_and_live_ones_say_so():
    lines = resources.find('config/detector.yaml').read_text().splitlines()
    known = {name: what for cls in CONFIGURATIONS for name, what in options(cls).items()}
    for name, what in known.items():
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f'{name}:'))
        comment = []
        while lines[at - 1].strip().startswith('#'):
            at -= 1
            comment.insert(0, lines[at].strip('# '))
        assert comment, name
        assert (' Live.' in ' '.join(comment)) == what.live, name


def test_names_are_given_once_and_every_option_is_described():
    fields = [field.name for cls in CONFIGURATIONS for field in dataclasses.fields(cls)]
    assert len(fields) == len(set(fields))
    assert all(what.description.endswith(('.', '…')) for cls in CONFIGURATIONS for what in options(cls).values())
