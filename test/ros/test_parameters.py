from dataclasses import dataclass

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter

from superpoint_ros.config import check, option
from superpoint_ros.ros import parameters


@dataclass(frozen=True)
class Sieve:
    mesh: float = option(0.5, 'Width of the holes.', unit='mm', minimum=0, maximum=10, live=True)
    layers: int = option(3, 'Number of layers.', minimum=1)
    material: str = option('steel', 'What it is made of.', choices=('steel', 'brass'))
    shake: bool = option(False, 'Shake it.', live=True)
    names: tuple[str, ...] = option((), 'What passes through.')

    def __post_init__(self):
        check(self)
        if self.layers == 13:
            raise ValueError('layers: 13 is bad luck')


@dataclass(frozen=True)
class Start:
    autostart: bool = option(True, 'Start by itself.')


@pytest.fixture
def make(context):
    nodes = []

    def maker(*given):
        arguments = [argument for parameter in given for argument in ('-p', parameter)]
        nodes.append(rclpy.create_node('sieve', context=context, cli_args=['--ros-args', *arguments]))
        return nodes[-1]

    yield maker
    for node in nodes:
        node.destroy_node()


@pytest.fixture
def node(make):
    made = make()
    parameters.declare(made, (Sieve, Start), read_only=('autostart',))
    return made


def check_change(node, configured=False, **changes):
    values = [Parameter(name, value=value) for name, value in changes.items()]
    return parameters.check_change(node, values, (Sieve, Start), configured)


def test_defaults_are_those_of_the_configuration(node):
    assert parameters.read(node, Sieve) == Sieve()
    assert node.get_parameter('names').type_ == Parameter.Type.STRING_ARRAY


def test_given_values_are_read(make):
    node = make('mesh:=2.5', "names:=['sand','salt']", 'material:=brass')
    parameters.declare(node, (Sieve,))
    assert parameters.read(node, Sieve) == Sieve(mesh=2.5, names=('sand', 'salt'), material='brass')


def test_an_empty_list_can_be_given(make):
    node = make('names:=[]')
    parameters.declare(node, (Sieve,))
    assert parameters.read(node, Sieve).names == ()


def test_descriptors_contain_ranges_units_and_choices(node):
    mesh, layers = node.describe_parameter('mesh'), node.describe_parameter('layers')
    assert (mesh.description, mesh.read_only) == ('Width of the holes. [mm]', False)
    assert (mesh.floating_point_range[0].from_value, mesh.floating_point_range[0].to_value) == (0, 10)
    assert mesh.additional_constraints == ''
    assert (layers.integer_range[0].from_value, layers.integer_range[0].to_value) == (1, 2**63 - 1)
    assert 'configured' in layers.additional_constraints
    assert node.describe_parameter('material').additional_constraints.startswith('One of: steel, brass.')
    assert node.describe_parameter('autostart').read_only


@pytest.mark.parametrize('given', ['mesh:=11.0', 'mesh:=11', 'layers:=0', 'shake:=1', 'material:=wood', 'layers:=13'])
def test_a_wrong_initial_value_raises_an_error_that_names_it(make, given):
    with pytest.raises((ParameterException, ValueError), match=given.split(':')[0]):
        parameters.declare(make(given), (Sieve,))


def test_only_live_options_change_while_the_node_is_configured(node):
    assert check_change(node, configured=True, mesh=1.5, shake=True).successful
    result = check_change(node, configured=True, mesh=1.5, layers=4)
    assert not result.successful
    assert result.reason.startswith('layers: cannot change while')
    assert check_change(node, configured=False, layers=4).successful


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'material': 'wood'}, "material: 'wood' is not one of steel, brass"),
        ({'layers': 13}, 'layers: 13 is bad luck'),
        ({'mesh': 1.0, 'layers': 0}, 'layers: 0 is out of range, expected at least 1'),
    ],
)
def test_a_bad_change_is_refused_with_the_reason(node, changes, reason):
    result = check_change(node, **changes)
    assert (result.successful, result.reason) == (False, reason)
