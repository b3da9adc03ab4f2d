"""Start the detector: images in, features out.

    ros2 launch superpoint_ros detector.launch.py image:=/camera/image_raw
    ros2 launch superpoint_ros detector.launch.py cameras:=left,right max_keypoints:=500

Every parameter of the node is an argument; those not given keep the node's defaults. All of them:

    ros2 launch superpoint_ros detector.launch.py --show-args
"""

from launch import LaunchDescription

from superpoint_ros.ros.detector_config import CONFIGURATIONS
from superpoint_ros.ros.launching import node_description


def generate_launch_description() -> LaunchDescription:
    return node_description(
        'superpoint_detector',
        CONFIGURATIONS,
        {'image': 'where the images come from.', 'features': 'where the features go to.'},
    )
