"""The detector's topics of one camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header, String

from superpoint_ros import images
from superpoint_ros.drawing import draw_keypoints
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features
from superpoint_ros.image_files import eight_bits
from superpoint_ros.ros.detector_config import DetectorConfig
from superpoint_ros.ros.diagnostics import status
from superpoint_ros.ros.input_topic import image_input
from superpoint_ros.ros.markers import MarkerTopic
from superpoint_ros.ros.mask_topic import Arrival, MaskTopic, mask_in
from superpoint_ros.ros.messages import features_message, image_message
from superpoint_ros.ros.topic_names import follow


class DetectorTopics:
    """Receives the images of one camera and publishes their features.

    The namespace `name` may be empty. The mask (H, W) applies to every image and is 0 where keypoints are not allowed;
    None allows them everywhere. The extractor is described on features/info.
    """

    def __init__(
        self, node: Node, name: str, mask: images.Gray | None, config: DetectorConfig, extractor: Extractor
    ) -> None:
        self._mask = mask
        prefix = f'{name}/' if name else ''
        self.input = image_input(node, prefix, config.image_transport, config.qos_reliability)
        self._masks = MaskTopic(node, prefix, config) if config.mask_topic != 'none' else None
        self._status_name = f'{node.get_name()}: {name}' if name else node.get_name()
        self._extractor = extractor
        self._descriptor_type = config.descriptor_type
        self._last_info = ''
        self._keypoints = 0
        reliability = {'reliable': ReliabilityPolicy.RELIABLE, 'best_effort': ReliabilityPolicy.BEST_EFFORT}
        qos = QoSProfile(depth=config.output_depth, reliability=reliability[config.output_reliability])
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic = f'{prefix}features'
        self._features = node.create_publisher(PointCloud2, topic, qos)
        self._annotated = node.create_publisher(Image, follow(node, topic, 'image'), 1)
        self._info = node.create_publisher(String, follow(node, topic, 'info'), latched)
        self._markers = MarkerTopic(node, topic)

    def subscribe(self, receive: Callable[[Arrival], None]) -> None:
        """Call a function with each image that arrives, and with its mask if masks come on a topic."""
        if self._masks:
            self._masks.subscribe(self.input, receive)
        else:
            self.input.subscribe(lambda image, received_at: receive(Arrival(image, received_at)))

    def unsubscribe(self) -> None:
        """Stop receiving."""
        self.input.unsubscribe()
        if self._masks:
            self._masks.unsubscribe()

    def mask_of(self, arrival: Arrival) -> images.Gray | None:
        """The mask of an image, (H, W), 0 where the file or the topic allows no keypoints; None if there is neither.

        Raises:
            ValueError: the message is not a mask, or has another size than the file.
        """
        if arrival.mask is None:
            return self._mask
        mask = mask_in(arrival.mask)
        if self._mask is None:
            return mask
        if mask.shape != self._mask.shape:
            raise ValueError(f'mask: expected shape {self._mask.shape} as that of the mask file, got {mask.shape}')
        return np.minimum(mask, self._mask)

    def publish(self, features: Features, image: images.Gray, header: Header, received_at: float) -> None:
        """Publish the features of an image, which arrived at a monotonic time in seconds with this header."""
        info = self._extractor.info(self._descriptor_type, features.image_size)
        if info != self._last_info:
            self._info.publish(String(data=info))
            self._last_info = info
        self._features.publish(features_message(features, header, self._descriptor_type))
        self.input.statistics.publish(received_at)
        self._keypoints = len(features)
        if self._markers.wanted:
            self._markers.publish_dots(features.keypoints, header)
        if self._annotated.get_subscription_count():
            self._annotated.publish(image_message(draw_keypoints(eight_bits(image), features), header))

    def report(self, facts: dict[str, str]) -> DiagnosticStatus:
        """Status for /diagnostics; `facts` says what runs the network."""
        values: dict[str, object] = {**self.input.statistics.values()}
        rate = str(values['rate out [Hz]'])
        level, message = self.input.health(publishing=float(rate) > 0)
        if self._masks:
            values |= self._masks.values()
            level, message = (level, message) if message else self._masks.health()
        message = message or f'{rate} Hz, {self._keypoints} keypoints'
        values |= {'keypoints': self._keypoints, **facts}
        return status(level, self._status_name, message, values, facts['device'])
