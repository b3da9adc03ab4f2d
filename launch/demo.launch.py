"""Start a camera that moves over photographs, the detector and the matcher; look at it with rviz2 or rqt_image_view.

ros2 launch superpoint_ros demo.launch.py
ros2 launch superpoint_ros demo.launch.py source:=0 backend:=openvino
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    'source': ('photographs', 'photographs, the number of a webcam, a video file, or a folder of images.'),
    'rate': ('30.0', 'Images a second.'),
    'model': ('superpoint', 'Name of a shipped model, or path of a .safetensors or .onnx file.'),
    'backend': ('auto', 'Library that runs the network.'),
}


def generate_launch_description() -> LaunchDescription:
    def given(*names: str) -> list[dict[str, ParameterValue]]:
        kinds = {'rate': float}
        return [{n: ParameterValue(LaunchConfiguration(n), value_type=kinds.get(n, str)) for n in names}]

    parameters = {'camera': given('source', 'rate'), 'detector': given('model', 'backend'), 'matcher': []}
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=text) for n, (d, text) in ARGUMENTS.items()),
            *(
                Node(package='superpoint_ros', executable=f'superpoint_{name}', parameters=values, output='screen')
                for name, values in parameters.items()
            ),
        ]
    )
