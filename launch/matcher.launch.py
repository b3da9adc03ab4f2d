"""Start the matcher: features in, matches and tracks out.

    ros2 launch superpoint_ros matcher.launch.py
    ros2 launch superpoint_ros matcher.launch.py pairs:=left:right epipolar_band:=2.0

Every parameter of the node is an argument; those not given keep the node's defaults. All of them:

    ros2 launch superpoint_ros matcher.launch.py --show-args
"""

from launch import LaunchDescription

from superpoint_ros.ros.launching import node_description
from superpoint_ros.ros.matcher_config import CONFIGURATIONS


def generate_launch_description() -> LaunchDescription:
    return node_description(
        'superpoint_matcher',
        CONFIGURATIONS,
        {
            'features': 'where the features come from.',
            'matches': 'where the matches go to.',
            'tracks': 'where the tracks go to.',
        },
    )
