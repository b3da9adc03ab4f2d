"""The matcher's topics of matches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2, TimeReference

from superpoint_ros import clouds
from superpoint_ros.drawing import draw_matches, draw_motion
from superpoint_ros.features import Matches
from superpoint_ros.image_files import eight_bits
from superpoint_ros.matching import verify
from superpoint_ros.ros.diagnostics import Statistics
from superpoint_ros.ros.feature_stream import FeatureStream
from superpoint_ros.ros.matcher_config import MatcherConfig
from superpoint_ros.ros.messages import cloud_message, image_message
from superpoint_ros.ros.topic_names import follow
from superpoint_ros.stream_tracker import Frame


class MatchOutput:
    """Publishes the matches of two frames, with the header of the second.

    <topic>/first has the stamp and the frame_id of the first frame. <topic>/image shows the matches, and is drawn only
    while it has a subscriber. The streams are the cameras of the first and of the second frame, the same for one camera
    over time. `config` may be replaced.
    """

    def __init__(
        self, node: Node, topic: str, streams: tuple[FeatureStream, FeatureStream], config: MatcherConfig
    ) -> None:
        self.topic = topic
        self.config = config
        self.matches = 0
        """Number of matches published last."""
        self.statistics = Statistics()
        self._streams = streams
        self._cloud = node.create_publisher(PointCloud2, topic, 5)
        self._first = node.create_publisher(TimeReference, follow(node, topic, 'first'), 5)
        self._image = node.create_publisher(Image, follow(node, topic, 'image'), 1)

    @property
    def drawing(self) -> bool:
        """Whether <topic>/image has a subscriber."""
        return self._image.get_subscription_count() > 0

    def publish(self, first: Frame, second: Frame, matches: Matches, received_at: float) -> None:
        """Publish those matches of two frames that agree with the configured geometry.

        `received_at` is the monotonic time in seconds at which the later frame arrived.

        Raises:
            ValueError: the geometry needs a calibration that is missing.
        """
        points0 = first.features.keypoints[matches.indices[:, 0]]
        points1 = second.features.keypoints[matches.indices[:, 1]]
        matches = matches[self._inliers(points0, points1)]
        self.matches = len(matches)
        # Published first, so that subscribers to both have it when the matches arrive.
        source = first.header.frame_id
        self._first.publish(TimeReference(header=second.header, time_ref=first.header.stamp, source=source))
        cloud = clouds.encode_matches(first.features, second.features, matches)
        self._cloud.publish(cloud_message(cloud, second.header))
        self.statistics.publish(received_at)
        if self.drawing and (picture := self._picture(first, second, matches)) is not None:
            self._image.publish(image_message(picture, second.header))

    def _picture(self, first: Frame, second: Frame, matches: Matches) -> npt.NDArray[np.uint8] | None:
        """The motion of one camera, or the images of two side by side; None if an image is missing."""
        features = first.features, second.features
        image1 = self._streams[1].image(second)
        if image1 is None or self._streams[0] is self._streams[1]:
            return None if image1 is None else draw_motion(eight_bits(image1), features, matches)
        image0 = self._streams[0].image(first)
        if image0 is None:
            return None
        points = [side.keypoints[matches.indices[:, i]] for i, side in enumerate(features)]
        return draw_matches((eight_bits(image0), eight_bits(image1)), points[0], points[1], np.ones(len(matches), bool))

    def _inliers(self, points0: npt.NDArray[np.floating], points1: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        geometry, threshold = self.config.geometry, self.config.geometry_threshold
        if geometry == 'none':
            return np.ones(len(points0), bool)
        if geometry != 'essential':
            return verify(points0, points1, geometry, threshold).inliers
        camera0, camera1 = (stream.calibration() for stream in self._streams)
        points0, points1 = camera0.undistort(points0), camera1.undistort(points1)
        return verify(points0, points1, geometry, threshold, (camera0.matrix, camera1.matrix)).inliers
