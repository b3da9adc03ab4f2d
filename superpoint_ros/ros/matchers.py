"""What the matcher node does with the frames of one camera, and with those of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from superpoint_ros import clouds
from superpoint_ros.matching import MatchConfig, Matcher, match
from superpoint_ros.ros.diagnostics import status
from superpoint_ros.ros.feature_stream import FeatureStream
from superpoint_ros.ros.match_output import MatchOutput
from superpoint_ros.ros.matcher_config import MatcherConfig
from superpoint_ros.ros.messages import cloud_message
from superpoint_ros.ros.pairing import Pairing
from superpoint_ros.stream_tracker import Frame, Stream, StreamTracker
from superpoint_ros.tracking import TrackerConfig


class CameraMatcher:
    """Follows the features of one camera over time: tracks, and matches with the frame before or with a reference.

    Args:
        node: whose topics and services they are.
        stream: of the camera.
        config: of the node.
        match_config: what makes two features a match.
        tracker_config: how points are followed.
    """

    def __init__(
        self,
        node: Node,
        stream: FeatureStream,
        config: MatcherConfig,
        match_config: MatchConfig,
        tracker_config: TrackerConfig,
    ) -> None:
        prefix = f'{stream.name}/' if stream.name else ''
        self.streams = (stream,)
        self.output = MatchOutput(node, f'{prefix}matches', (stream, stream), config)
        self._node = node
        self._match_config, self._tracker_config = match_config, tracker_config
        self._tracker = StreamTracker(match_config, tracker_config)
        self._publisher = node.create_publisher(PointCloud2, f'{prefix}tracks', 5)
        self._services = [
            node.create_service(Trigger, f'~/{prefix}set_reference', self._set_reference),
            node.create_service(Trigger, f'~/{prefix}clear_reference', self._clear_reference),
        ]

    def destroy(self) -> None:
        """End topics and services."""
        self.output.destroy()
        self._node.destroy_publisher(self._publisher)
        for service in self._services:
            self._node.destroy_service(service)

    def configure(self, options: Mapping[str, Any]) -> None:
        """Take new values of live options."""
        self.output.config = _changed(self.output.config, options)
        self._match_config = _changed(self._match_config, options)
        self._tracker_config = _changed(self._tracker_config, options)
        self._tracker.set_config(self._match_config, self._tracker_config)

    def reset(self) -> None:
        """Forget all frames, the reference too; the numbers of tracks go on."""
        self._tracker.reset()

    def take(self, stream: FeatureStream, frame: Frame, received_at: float) -> None:
        """Process the next frame.

        Raises:
            ValueError: one sentence on what is missing.
        """
        step = self._tracker.update(frame)
        if step is None:
            return
        if step.restart:
            self._node.get_logger().warning(
                f'{stream.topic}: {step.restart}; tracks start again, and the reference frame is forgotten'
            )
        self._publisher.publish(cloud_message(clouds.encode_tracks(step.tracks), frame.header))
        if step.matched:
            first, matches = step.matched
            self.output.publish(first, frame, matches, received_at)

    def report(self) -> DiagnosticStatus:
        """What to tell on /diagnostics."""
        return _report(self._node, self.output, self.streams, (self._tracker.stream,), {})

    def _set_reference(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:  # noqa: ARG002
        last = self._tracker.stream.last
        if last is None:
            response.success, response.message = False, f'no frame has come on {self.streams[0].topic} yet'
        else:
            self._tracker.reference, stamp = last, last.header.stamp
            response.success, response.message = True, f'the reference is the frame of {stamp.sec}.{stamp.nanosec:09d}'
        return response

    def _clear_reference(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:  # noqa: ARG002
        self._tracker.reference = None
        response.success, response.message = True, 'matches are with the frame before'
        return response


class PairMatcher:
    """Matches the features of two cameras, frame by frame.

    Args:
        node: whose topics they are.
        topic: of the matches.
        streams: of the first and of the second camera.
        config: of the node.
        match_config: what makes two features a match.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        streams: tuple[FeatureStream, FeatureStream],
        config: MatcherConfig,
        match_config: MatchConfig,
    ) -> None:
        self.streams = streams
        self.output = MatchOutput(node, topic, streams, config)
        self._node = node
        self._match_config = match_config
        self._matcher = _matcher(match_config, config)
        self._orders = Stream(), Stream()
        self._pairing: Pairing[Frame] = Pairing(round(config.sync_tolerance * 1e9), config.depth)

    def destroy(self) -> None:
        """End the topics."""
        self.output.destroy()

    def configure(self, options: Mapping[str, Any]) -> None:
        """Take new values of live options."""
        self.output.config = _changed(self.output.config, options)
        self._match_config = _changed(self._match_config, options)
        self._matcher = _matcher(self._match_config, self.output.config)

    def reset(self) -> None:
        """Forget the frames that wait for their partner."""
        self._pairing.clear()
        for order in self._orders:
            order.last = None

    def take(self, stream: FeatureStream, frame: Frame, received_at: float) -> None:
        """Process the next frame of one of the two cameras.

        Raises:
            ValueError: the two do not come from the same model, or one sentence on what is missing.
        """
        side = self.streams.index(stream)
        arrival = self._orders[side].add(frame)
        if arrival.restart:
            self._node.get_logger().warning(f'{stream.topic}: {arrival.restart}; starting anew')
            self._pairing.clear()
        pair = self._pairing.add(side, frame.stamp, frame)
        if pair is None:
            return
        first, second = pair
        if bool(first.features.checksum) != bool(second.features.checksum):
            unknown = self.streams[bool(first.features.checksum)].name
            raise ValueError(f'features of two models are not matched ({unknown}: nothing came on features/info)')
        self.output.publish(first, second, self._matcher(first.features, second.features), received_at)

    def report(self) -> DiagnosticStatus:
        """What to tell on /diagnostics."""
        counted = {'unpaired': self._pairing.unpaired}
        return _report(self._node, self.output, self.streams, self._orders, counted)


def _matcher(match_config: MatchConfig, config: MatcherConfig) -> Matcher:
    """Matches two cameras: the window is for one camera in time, here the disparity takes its place."""
    return partial(match, config=replace(match_config, window=config.max_disparity))


def _changed(config: Any, options: Mapping[str, Any]) -> Any:
    return replace(config, **{field.name: options[field.name] for field in fields(config) if field.name in options})


def _report(
    node: Node,
    output: MatchOutput,
    streams: tuple[FeatureStream, ...],
    orders: tuple[Stream, ...],
    counted: Mapping[str, object],
) -> DiagnosticStatus:
    level, message = DiagnosticStatus.OK, ''
    going_out = output.statistics.values()
    values: dict[str, object] = {'matches': output.matches, **counted}
    values |= {name: going_out[name] for name in ('rate out [Hz]', 'latency p50 [ms]', 'latency p99 [ms]', 'published')}
    for stream, order in zip(streams, orders, strict=True):
        coming_in = stream.statistics.values()
        prefix = f'{stream.name} ' if len(streams) > 1 else ''
        names = 'rate in [Hz]', 'received', 'dropped', 'bad', 'last error'
        values |= {f'{prefix}{name}': coming_in[name] for name in names}
        values |= {f'{prefix}out of order': order.late, f'{prefix}resets': order.restarts}
        if stream.unpublished:
            level, message = DiagnosticStatus.STALE, f'nobody publishes {stream.unpublished}'
        elif level == DiagnosticStatus.OK and stream.trouble:
            level, message = DiagnosticStatus.WARN, stream.trouble
        elif level == DiagnosticStatus.OK and stream.statistics.failing:
            level = DiagnosticStatus.WARN if float(going_out['rate out [Hz]']) else DiagnosticStatus.ERROR
            message = f'{stream.topic}: {stream.statistics.last_error}'
    if level == DiagnosticStatus.OK:
        message = f'{going_out["rate out [Hz]"]} Hz, {output.matches} matches'
    return status(level, f'{node.get_name()}: {output.topic}', message, values)
