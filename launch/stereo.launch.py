"""Start a detector and a matcher for two cameras: left/image and right/image in, matches between them out.

    ros2 launch superpoint_ros stereo.launch.py
    ros2 launch superpoint_ros stereo.launch.py left:=infra1 right:=infra2 epipolar_band:=2.0 cameras:=infra1

The detector processes both images as one batch. `cameras` names cameras that the matcher also tracks over time. Every
other parameter of the two nodes is an argument too. To list them:

    ros2 launch superpoint_ros stereo.launch.py --show-args
"""

from launch import LaunchDescription

from superpoint_ros.ros import detector_config, matcher_config
from superpoint_ros.ros.launching import nodes_description


def generate_launch_description() -> LaunchDescription:
    return nodes_description(
        {
            'superpoint_detector': detector_config.CONFIGURATIONS,
            'superpoint_matcher': matcher_config.CONFIGURATIONS,
        },
        {'matches': 'matches to publish.'},
        {
            'left': ('left', 'Namespace of the left camera: left/image gives left/features.'),
            'right': ('right', 'Namespace of the right camera.'),
        },
        {'superpoint_detector': {'cameras': '{left},{right}'}, 'superpoint_matcher': {'pairs': '{left}:{right}'}},
    )
