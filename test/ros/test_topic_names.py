import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from superpoint_ros.ros.topic_names import check_cameras


def test_relative_namespaces_are_accepted():
    check_cameras('cameras', ['', 'left', 'robot/left', '_2'])


@pytest.mark.parametrize('name', ['/left', '~/left', 'left/', 'a//b', '2nd', 'a b', '{node}', 'links:rechts', 'é'])
def test_other_names_are_refused_with_the_name_of_the_parameter(name):
    with pytest.raises(ValueError, match='cameras: expected relative namespaces such as left') as error:
        check_cameras('cameras', ['left', name])
    assert repr(name) in str(error.value)


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match='cameras: expected different names, got left, left'):
        check_cameras('cameras', ['left', 'left'])
