"""Start the matcher: features in, matches and tracks out.

    ros2 launch superpoint_ros matcher.launch.py
    ros2 launch superpoint_ros matcher.launch.py pairs:=left:right epipolar_band:=2.0

Every parameter of the node is an argument. To list them:

    ros2 launch superpoint_ros matcher.launch.py --show-args
"""

from launch import LaunchDescription

from superpoint_ros.ros.launching import nodes_description
from superpoint_ros.ros.matcher_config import CONFIGURATIONS


def generate_launch_description() -> LaunchDescription:
    return nodes_description(
        {'superpoint_matcher': CONFIGURATIONS},
        {'features': 'features to read.', 'matches': 'matches to publish.', 'tracks': 'tracks to publish.'},
    )
