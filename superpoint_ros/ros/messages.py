"""Conversion between arrays and messages; the layouts of clouds are in superpoint_ros.clouds."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from superpoint_ros import clouds
from superpoint_ros.features import Features


def cloud_message(cloud: npt.NDArray[np.void], header: Header) -> PointCloud2:
    """A PointCloud2 of height 1 from (N,) records of superpoint_ros.clouds."""
    fields = [PointField(**field._asdict()) for field in clouds.point_fields(cloud.dtype)]
    return PointCloud2(header=header, fields=fields, data=_bytes(cloud), **clouds.message_values(cloud))


def features_message(features: Features, header: Header, descriptor_type: str = 'int8') -> PointCloud2:
    """The message of the features of an image; `header` is that of the image, `descriptor_type` int8 or float32."""
    return cloud_message(clouds.encode_features(features, descriptor_type), header)


features_from_message = clouds.decode_features


def image_message(image: npt.NDArray[np.uint8], header: Header) -> Image:
    """A sensor_msgs/Image from a gray (H, W) or BGR (H, W, 3) array."""
    height, width = image.shape[:2]
    encoding = 'mono8' if image.ndim == 2 else 'bgr8'
    message = Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0)
    message.step = image.nbytes // height
    message.data = _bytes(image)
    return message


def _bytes(values: npt.NDArray[Any]) -> array.array[int]:
    # For a uint8[] field, rclpy checks each byte of any other type: 50 ms per MB for an ndarray.
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data
