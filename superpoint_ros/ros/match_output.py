"""Publishes the matches of two frames: the cloud, the stamp of the first frame, and a picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2, TimeReference

from superpoint_ros import clouds
from superpoint_ros.drawing import draw_matches, draw_motion
from superpoint_ros.features import Matches
from superpoint_ros.images import Gray
from superpoint_ros.matching import verify
from superpoint_ros.ros.diagnostics import Statistics
from superpoint_ros.ros.feature_stream import FeatureStream
from superpoint_ros.ros.matcher_config import MatcherConfig
from superpoint_ros.ros.messages import cloud_message, image_message
from superpoint_ros.stream_tracker import Frame


class MatchOutput:
    """Publishes the matches of two frames; the cloud has the header of the second.

    Args:
        node: that publishes.
        topic: of the clouds; <topic>/first has the stamp and the frame_id of the first frame, with the header of the
            cloud; <topic>/image is drawn when someone subscribes.
        streams: of the first and of the second frame's camera.
        config: of the node.
    """

    def __init__(
        self, node: Node, topic: str, streams: tuple[FeatureStream, FeatureStream], config: MatcherConfig
    ) -> None:
        self.topic = topic
        self.config = config
        self.matches = 0
        """How many were published last."""
        self.statistics = Statistics()
        self._node = node
        self._streams = streams
        self._cloud = node.create_publisher(PointCloud2, topic, 5)
        self._first = node.create_publisher(TimeReference, f'{topic}/first', 5)
        self._image = node.create_publisher(Image, f'{topic}/image', 1)

    @property
    def drawing(self) -> bool:
        """Whether someone wants to see the picture."""
        return self._image.get_subscription_count() > 0

    def destroy(self) -> None:
        """End the topics."""
        for publisher in (self._cloud, self._first, self._image):
            self._node.destroy_publisher(publisher)

    def publish(self, first: Frame, second: Frame, matches: Matches, received_at: float) -> None:
        """Publish matches, of which only those are left that agree with the geometry, if there is to be one.

        Raises:
            ValueError: the geometry needs a calibration that is not there.
        """
        points0 = first.features.keypoints[matches.indices[:, 0]]
        points1 = second.features.keypoints[matches.indices[:, 1]]
        matches = matches[self._agreeing(points0, points1)]
        self.matches = len(matches)
        # This one first, so that a reader of both has it when the matches come.
        source = first.header.frame_id
        self._first.publish(TimeReference(header=second.header, time_ref=first.header.stamp, source=source))
        cloud = clouds.encode_matches(first.features, second.features, matches)
        self._cloud.publish(cloud_message(cloud, second.header))
        self.statistics.publish(received_at)
        if self.drawing and (picture := self._picture(first, second, matches)) is not None:
            self._image.publish(image_message(picture, second.header))

    def _picture(self, first: Frame, second: Frame, matches: Matches) -> npt.NDArray[np.uint8] | None:
        """The second image with the way of each point, or the images of two cameras side by side; None without them."""
        features = first.features, second.features
        image1 = self._streams[1].image(second)
        if image1 is None or self._streams[0] is self._streams[1]:
            return None if image1 is None else draw_motion(_eight_bits(image1), features, matches)
        image0 = self._streams[0].image(first)
        if image0 is None:
            return None
        return draw_matches((_eight_bits(image0), _eight_bits(image1)), features, matches, np.ones(len(matches), bool))

    def _agreeing(self, points0: npt.NDArray[np.floating], points1: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        config = self.config
        if config.geometry == 'none':
            return np.ones(len(points0), bool)
        if config.geometry != 'essential':
            return verify(points0, points1, config.geometry, config.geometry_threshold).inliers
        stream0, stream1 = self._streams
        return verify(
            stream0.undistorted(points0, config.rectified),
            stream1.undistorted(points1, config.rectified),
            config.geometry,
            config.geometry_threshold,
            (stream0.camera(config.rectified)[0], stream1.camera(config.rectified)[0]),
        ).inliers


def _eight_bits(image: Gray) -> npt.NDArray[np.uint8]:
    return np.asarray(image if image.dtype == np.uint8 else image >> 8, np.uint8)
