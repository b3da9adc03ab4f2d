"""Writes our messages to ROS 2 bags without a ROS installation; the bytes are those of a live node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from superpoint_ros import clouds
from superpoint_ros.bags.read import typestore

CLOUD = 'sensor_msgs/msg/PointCloud2'
STRING = 'std_msgs/msg/String'
REFERENCE = 'sensor_msgs/msg/TimeReference'


def string_of(data: bytes) -> str:
    """The text in a serialized std_msgs/String."""
    message: Any = typestore().deserialize_cdr(data, STRING)
    return str(message.data)


@contextmanager
def bag_writer(path: Path, storage: str = 'mcap') -> Iterator[BagWriter]:
    """Create a bag, which is complete when the block ends without an error."""
    # Humble and later read version 8 of the format.
    with Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        yield BagWriter(writer)


class BagWriter:
    """Writes our messages to a bag; the first message of a topic declares it."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._connections: dict[str, Connection] = {}

    def cloud(self, topic: str, stamp: int, cloud: npt.NDArray[np.void], header: Any) -> None:
        """Write (N,) records of superpoint_ros.clouds as a PointCloud2 of height 1.

        `stamp` is the log time in ns, and `header` a std_msgs/Header of ROS 1 or 2.
        """
        types = typestore().types
        fields = [types['sensor_msgs/msg/PointField'](*field) for field in clouds.point_fields(cloud.dtype)]
        data = cloud.view(np.uint8).reshape(-1)
        message = types[CLOUD](header=_header(header), fields=fields, data=data, **clouds.message_values(cloud))
        self.raw(topic, CLOUD, stamp, typestore().serialize_cdr(message, CLOUD))

    def reference(self, topic: str, stamp: int, header: Any, first: Any) -> None:
        """Write a sensor_msgs/TimeReference with the header of an image, and the stamp and frame of another header."""
        message = typestore().types[REFERENCE](
            header=_header(header), time_ref=_header(first).stamp, source=first.frame_id
        )
        self.raw(topic, REFERENCE, stamp, typestore().serialize_cdr(message, REFERENCE))

    def string(self, topic: str, stamp: int, text: str) -> None:
        """Write a std_msgs/String on a latched topic."""
        self.raw(topic, STRING, stamp, typestore().serialize_cdr(typestore().types[STRING](text), STRING))

    def raw(self, topic: str, msgtype: str, stamp: int, data: bytes | memoryview) -> None:
        """Write a serialized message."""
        if topic not in self._connections:
            self._connections[topic] = self.writer.add_connection(
                topic, msgtype, typestore=typestore(), offered_qos_profiles=[_qos(latched=msgtype == STRING)]
            )
        self.writer.write(self._connections[topic], stamp, data)


def _header(header: Any) -> Any:
    """A ROS 2 header with the values of a ROS 1 or ROS 2 header."""
    types = typestore().types
    time = types['builtin_interfaces/msg/Time'](sec=header.stamp.sec, nanosec=header.stamp.nanosec)
    return types['std_msgs/msg/Header'](stamp=time, frame_id=header.frame_id)


def _qos(latched: bool) -> Qos:
    """The quality of service of the nodes: reliable; transient local if latched."""
    forever = QosTime(2147483647, 4294967295)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 5,
        QosReliability.RELIABLE,
        durability,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
