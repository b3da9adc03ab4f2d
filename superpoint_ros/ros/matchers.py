"""The matchers of the matcher node: one camera over time, and pairs of cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from superpoint_ros import clouds
from superpoint_ros.config import options
from superpoint_ros.matching import Matcher, match
from superpoint_ros.ros.diagnostics import status
from superpoint_ros.ros.feature_stream import FeatureStream
from superpoint_ros.ros.markers import MarkerTopic, Trails
from superpoint_ros.ros.match_output import MatchOutput
from superpoint_ros.ros.matcher_config import Configs, MatcherConfig
from superpoint_ros.ros.messages import cloud_message
from superpoint_ros.ros.pairing import Pairing
from superpoint_ros.stream_tracker import Frame, Stream, StreamTracker


class CameraMatcher:
    """Publishes the tracks of one camera, and the matches of each frame with the previous or a reference frame.

    Matches are those of `learned`, or else of nearest neighbors.
    """

    def __init__(self, node: Node, stream: FeatureStream, configs: Configs, learned: Matcher | None = None) -> None:
        self.streams = (stream,)
        self.output = MatchOutput(node, f'{stream.prefix}matches', (stream, stream), configs.node)
        self._node = node
        self._tracker = StreamTracker(configs.match, configs.tracker, learned)
        self._tracks = node.create_publisher(PointCloud2, f'{stream.prefix}tracks', 5)
        self._markers = MarkerTopic(node, f'{stream.prefix}tracks')
        self._trails = Trails()
        node.create_service(Trigger, f'~/{stream.prefix}set_reference', self._set_reference)
        node.create_service(Trigger, f'~/{stream.prefix}clear_reference', self._clear_reference)

    def set_configs(self, configs: Configs) -> None:
        """Change the configuration from the next frame on."""
        self.output.config = configs.node
        self._tracker.set_config(configs.match, configs.tracker)

    def reset(self) -> None:
        """Forget all frames, also the reference. Track identities continue."""
        self._tracker.reset()
        self._trails.clear()

    def take(self, stream: FeatureStream, frame: Frame, received_at: float) -> None:
        """Process the next frame.

        Raises:
            ValueError: the matcher refuses the features, or a calibration is missing; tracks are published all the
                same.
        """
        step = self._tracker.update(frame)
        if step is None:
            return
        if step.restart:
            _log_restart(self._node, stream, step.restart)
            self._trails.clear()
        self._tracks.publish(cloud_message(clouds.encode_tracks(step.tracks), frame.header))
        if self._markers.wanted:
            self._markers.publish_lines(*self._trails.add(step.tracks), frame.header)
        else:
            self._trails.clear()
        if matched := step.match():
            first, matches = matched
            self.output.publish(first, frame, matches, received_at)

    def report(self) -> DiagnosticStatus:
        """Status for /diagnostics."""
        stream = self._tracker.stream
        trouble = 'no tracks: the stamps of the frames do not increase' if stream.late else ''
        return _report(self._node, self.output, [(self.streams[0], stream)], no_results=trouble)

    def _set_reference(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:  # noqa: ARG002
        last = self._tracker.reference = self._tracker.stream.last
        response.success = last is not None
        response.message = f'no frame has arrived on {self.streams[0].input.topic}'
        if last:
            stamp = last.header.stamp
            response.message = f'the reference is the frame of {stamp.sec}.{stamp.nanosec:09d}'
        return response

    def _clear_reference(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:  # noqa: ARG002
        self._tracker.reference = None
        response.success, response.message = True, 'frames are matched with the previous frame'
        return response


class PairMatcher:
    """Publishes the matches of frames that two cameras took at the same time.

    Matches are those of `learned`, or else of nearest neighbors; `max_disparity` takes the place of their window.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        streams: tuple[FeatureStream, FeatureStream],
        configs: Configs,
        learned: Matcher | None = None,
    ) -> None:
        self.streams = streams
        self.output = MatchOutput(node, topic, streams, configs.node)
        self._node = node
        self._learned = learned
        self._orders = Stream(), Stream()
        self._pairing: Pairing[Frame] = Pairing(round(configs.node.sync_tolerance * 1e9), configs.node.depth)
        self.set_configs(configs)

    def set_configs(self, configs: Configs) -> None:
        """Change the configuration from the next frame on."""
        self.output.config = configs.node
        self._match_config = replace(configs.match, window=configs.node.max_disparity)

    def reset(self) -> None:
        """Forget all frames."""
        self._pairing.clear()
        for order in self._orders:
            order.last = None

    def take(self, stream: FeatureStream, frame: Frame, received_at: float) -> None:
        """Process the next frame of one of the two cameras.

        Raises:
            ValueError: the cameras use different models, or a calibration is missing.
        """
        side = self.streams.index(stream)
        restart = self._orders[side].add(frame)
        if restart:
            _log_restart(self._node, stream, restart)
            self._pairing.clear()
        pair = self._pairing.add(side, frame.stamp, frame)
        if pair is None:
            return
        first, second = pair
        known = [bool(frame.features.checksum) for frame in pair]
        if any(known) and not all(known):
            unknown = self.streams[known.index(False)]
            raise ValueError(
                f'features of two models are not matched: nothing arrived on {unknown.prefix}features/info'
            )
        matcher = self._learned or partial(match, config=self._match_config)
        self.output.publish(first, second, matcher(first.features, second.features), received_at)

    def report(self) -> DiagnosticStatus:
        """Status for /diagnostics."""
        streams = list(zip(self.streams, self._orders, strict=True))
        difference = self._pairing.smallest_difference()
        trouble = '' if difference is None else _no_pairs(difference / 1e9)
        return _report(self._node, self.output, streams, {'unpaired': self._pairing.unpaired}, trouble)


def _no_pairs(difference: float) -> str:
    """Why frames whose stamps differ by this many seconds form no pairs, with a remedy."""
    remedy = 'raise sync_tolerance'
    if difference > (options(MatcherConfig)['sync_tolerance'].maximum or 0):
        remedy = 'synchronize the clocks of the cameras'
    return f'no pairs: stamps differ by {1000 * difference:.1f} ms; {remedy}'


def _log_restart(node: Node, stream: FeatureStream, reason: str) -> None:
    node.get_logger().warning(f'{stream.input.topic}: {reason}; previous frames are forgotten')


def _report(
    node: Node,
    output: MatchOutput,
    streams: Sequence[tuple[FeatureStream, Stream]],
    counts: Mapping[str, object] | None = None,
    no_results: str = '',
) -> DiagnosticStatus:
    """Status of a matcher; `no_results` says why there are none although all of its streams deliver."""
    results = output.statistics.values()
    publishing = float(results['rate out [Hz]']) > 0
    level, message = DiagnosticStatus.OK, f'{results["rate out [Hz]"]} Hz, {output.matches} matches'
    values: dict[str, object] = {'matches': output.matches, **(counts or {})}
    values |= {name: results[name] for name in ('rate out [Hz]', 'latency p50 [ms]', 'latency p99 [ms]', 'published')}
    delivering = True
    for stream, order in streams:
        received = stream.input.statistics.values()
        prefix = f'{stream.name} ' if len(streams) > 1 else ''
        names = 'rate in [Hz]', 'received', 'dropped', 'bad', 'last error'
        values |= {f'{prefix}{name}': received[name] for name in names}
        values |= {f'{prefix}out of order': order.late, f'{prefix}resets': order.restarts}
        delivering &= float(received['rate in [Hz]']) > 0
        stream_level, trouble = stream.input.health(publishing)
        if stream_level > level:
            level, message = stream_level, trouble
    if no_results and delivering and not publishing and level == DiagnosticStatus.OK:
        level, message = DiagnosticStatus.WARN, no_results
    return status(level, f'{node.get_name()}: {output.topic}', message, values)
