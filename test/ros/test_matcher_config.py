"""config/matcher.yaml says what the node declares."""

import pytest
import yaml

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from superpoint_ros import resources  # noqa: E402
from superpoint_ros.config import options  # noqa: E402
from superpoint_ros.ros import parameters  # noqa: E402
from superpoint_ros.ros.matcher_config import CONFIGURATIONS  # noqa: E402


def test_the_file_has_every_parameter_of_the_node_with_its_default_and_no_other(context):
    written = yaml.safe_load(resources.find('config/matcher.yaml').read_text())['/**']['ros__parameters']
    node = rclpy.create_node('superpoint_matcher', context=context)
    own = set(node.get_parameters_by_prefix(''))
    parameters.declare(node, CONFIGURATIONS)
    declared = {name: p.value for name, p in node.get_parameters_by_prefix('').items() if name not in own}
    node.destroy_node()
    assert written == declared
    assert {name: type(value) for name, value in written.items()} == {n: type(v) for n, v in declared.items()}


def test_the_node_reads_the_file_as_its_defaults(context, capfd):
    arguments = ['--ros-args', '--params-file', str(resources.find('config/matcher.yaml'))]
    node = rclpy.create_node('superpoint_matcher', context=context, cli_args=arguments)
    parameters.declare(node, CONFIGURATIONS)
    for cls in CONFIGURATIONS:
        assert parameters.read(node, cls) == cls()
    node.destroy_node()
    assert 'is not known' not in capfd.readouterr().err


def test_every_parameter_has_a_comment_and_live_ones_say_so():
    lines = resources.find('config/matcher.yaml').read_text().splitlines()
    for name, what in ((name, what) for cls in CONFIGURATIONS for name, what in options(cls).items()):
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f'{name}:'))
        comment = []
        while lines[at - 1].strip().startswith('#'):
            at -= 1
            comment.insert(0, lines[at].strip('# '))
        assert comment, name
        assert ' '.join(comment).endswith(' Live.') == what.live, name
