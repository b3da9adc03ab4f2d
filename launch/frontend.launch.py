"""Start the detector and the matcher, and optionally a bag or a camera.

    ros2 launch superpoint_ros frontend.launch.py image:=/camera/image_raw
    ros2 launch superpoint_ros frontend.launch.py image:=/camera/image_raw bag:=recordings/drive
    ros2 launch superpoint_ros frontend.launch.py source:=photographs

Look at features/image and matches/image with rviz2 or rqt_image_view. Every parameter of the two nodes is an argument.
To list them:

    ros2 launch superpoint_ros frontend.launch.py --show-args
"""

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch_ros.actions import Node

from superpoint_ros.ros import detector_config, matcher_config
from superpoint_ros.ros.launching import nodes_description, parse

BAG = 'Bag to play; `image` names its image topic. Default: none.'
SOURCE = 'Camera to start: webcam number, video file, folder of images, or photographs. Default: none.'
RATE = 'Images per second of this camera; 0 for its own rate.'


def generate_launch_description() -> LaunchDescription:
    description = nodes_description(
        {
            'superpoint_detector': detector_config.CONFIGURATIONS,
            'superpoint_matcher': matcher_config.CONFIGURATIONS,
        },
        {
            'image': 'images to read.',
            'features': 'features to publish.',
            'matches': 'matches to publish.',
            'tracks': 'tracks to publish.',
        },
    )
    description.add_action(DeclareLaunchArgument('bag', default_value='', description=BAG))
    description.add_action(DeclareLaunchArgument('source', default_value='', description=SOURCE))
    description.add_action(DeclareLaunchArgument('rate', default_value='0.0', description=RATE))
    description.add_action(OpaqueFunction(function=start_source))
    return description


def start_source(context: LaunchContext) -> list[Any]:
    """Actions that play the bag and start the camera, if requested."""
    given = context.launch_configurations
    actions: list[Any] = []
    if given['bag']:
        # The delay gives the network time to load, so that the first images are not lost.
        play = ['ros2', 'bag', 'play', '--delay', '5', given['bag']]
        actions.append(ExecuteProcess(cmd=play, output='screen'))
    if given['source']:
        parameters = {name: parse(name, given[name], kind) for name, kind in {'source': str, 'rate': float}.items()}
        actions.append(
            Node(
                package='superpoint_ros',
                executable='superpoint_camera',
                namespace=given['namespace'],
                parameters=[parameters],
                remappings=[('image', given['image'])] if given['image'] else [],
                ros_arguments=['--log-level', given['log_level']] if given['log_level'] else [],
                output='screen',
            )
        )
    return actions
