"""The node superpoint_camera: publishes images for the demo."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from superpoint_ros.demo.sources import PHOTOGRAPHS, open_source
from superpoint_ros.ros.messages import image_message


class CameraNode(Node):
    """Publishes `image` from the parameter `source` (see sources.open_source) at the parameter `rate` in Hz."""

    def __init__(self) -> None:
        super().__init__('superpoint_camera')
        described = 'photographs, the number of a webcam, a video file, or a folder of images.'
        source = str(self._declare('source', PHOTOGRAPHS, described))
        rate = self._declare('rate', 0.0, 'Images per second; 0 for the rate of the source.')
        if not isinstance(rate, int | float) or (rate and not 0.1 <= rate <= 1000):
            raise ValueError(f'rate: {rate} is out of range, expected 0.1 to 1000 Hz, or 0 for the rate of the source')
        self._source = open_source(source, np.random.default_rng(0))
        # Reliable, so that images over 0.5 MB arrive on stock settings, too.
        self._publisher = self.create_publisher(Image, 'image', QoSProfile(depth=1))
        self.create_timer(1 / (rate or self._source.rate), self._publish)

    def _declare(self, name: str, default: Any, description: str) -> Any:
        """The value of a parameter of any type: to ROS, `source:=0` and `rate:=30` are integers."""
        described = ParameterDescriptor(description=description, dynamic_typing=True)
        return self.declare_parameter(name, default, described).value

    def _publish(self) -> None:
        stamp = self.get_clock().now()
        image = self._source.image_at(stamp.nanoseconds / 1e9)
        if not self._source.timed:  # a webcam makes the caller wait for its next image
            stamp = self.get_clock().now()
        self._publisher.publish(image_message(image, Header(stamp=stamp.to_msg(), frame_id='camera_optical_frame')))


def main() -> None:
    """Entry point of `ros2 run superpoint_ros superpoint_camera`."""
    rclpy.init()
    try:
        rclpy.spin(CameraNode())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'superpoint_camera: {error}')
    finally:
        rclpy.try_shutdown()
