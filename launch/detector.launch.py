"""Start the detector: images in, features out.

    ros2 launch superpoint_ros detector.launch.py image:=/camera/image_raw
    ros2 launch superpoint_ros detector.launch.py cameras:=left,right max_keypoints:=500

Every parameter of the node is an argument. To list them:

    ros2 launch superpoint_ros detector.launch.py --show-args
"""

from launch import LaunchDescription

from superpoint_ros.ros.detector_config import CONFIGURATIONS
from superpoint_ros.ros.launching import nodes_description


def generate_launch_description() -> LaunchDescription:
    return nodes_description(
        {'superpoint_detector': CONFIGURATIONS}, {'image': 'images to read.', 'features': 'features to publish.'}
    )
