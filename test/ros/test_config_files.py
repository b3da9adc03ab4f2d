"""config/detector.yaml and config/matcher.yaml match the declared parameters."""

import dataclasses

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy

from superpoint_ros import resources
from superpoint_ros.config import options
from superpoint_ros.ros import detector_config, matcher_config, parameters

NODES = {'detector': detector_config.CONFIGURATIONS, 'matcher': matcher_config.CONFIGURATIONS}

pytestmark = pytest.mark.parametrize(('name', 'configurations'), NODES.items(), ids=NODES)


def test_the_file_has_exactly_the_parameters_of_the_node_with_their_defaults(context, name, configurations):
    written = yaml.safe_load(resources.find(f'config/{name}.yaml').read_text())['/**']['ros__parameters']
    node = rclpy.create_node(f'superpoint_{name}', context=context)
    own = set(node.get_parameters_by_prefix(''))
    parameters.declare(node, configurations)
    declared = {key: p.value for key, p in node.get_parameters_by_prefix('').items() if key not in own}
    node.destroy_node()
    assert written == declared
    assert {key: type(value) for key, value in written.items()} == {k: type(v) for k, v in declared.items()}


def test_the_node_accepts_the_file(context, capfd, name, configurations):
    arguments = ['--ros-args', '--params-file', str(resources.find(f'config/{name}.yaml'))]
    node = rclpy.create_node(f'superpoint_{name}', context=context, cli_args=arguments)
    parameters.declare(node, configurations)
    for cls in configurations:
        assert parameters.read(node, cls) == cls()
    node.destroy_node()
    assert 'is not known' not in capfd.readouterr().err


def test_every_parameter_has_a_comment_that_marks_live_ones(name, configurations):
    lines = resources.find(f'config/{name}.yaml').read_text().splitlines()
    for key, what in ((key, what) for cls in configurations for key, what in options(cls).items()):
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f'{key}:'))
        comment = []
        while lines[at - 1].strip().startswith('#'):
            at -= 1
            comment.insert(0, lines[at].strip('# '))
        assert comment, key
        assert ' '.join(comment).endswith(' Live.') == what.live, key


def test_names_are_unique_and_every_option_has_a_description(name, configurations):
    fields = [field.name for cls in configurations for field in dataclasses.fields(cls)]
    assert len(fields) == len(set(fields)), name
    assert all(what.description.endswith(('.', '…')) for cls in configurations for what in options(cls).values())
