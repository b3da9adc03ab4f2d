"""The node superpoint_matcher: features in, matches and tracks out."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]

from superpoint_ros.matching import MatchConfig
from superpoint_ros.ros.feature_stream import Arrival, FeatureStream
from superpoint_ros.ros.fifo import Fifo
from superpoint_ros.ros.lifecycle import ManagedNode, run
from superpoint_ros.ros.matcher_config import CONFIGURATIONS, MatcherConfig
from superpoint_ros.ros.matchers import CameraMatcher, PairMatcher
from superpoint_ros.ros.parameters import read
from superpoint_ros.tracking import TrackerConfig


class MatcherNode(ManagedNode):
    """Publishes matches and tracks of the features of some cameras; see the package's documentation.

    Matching runs in a thread of its own, on one frame after the other.
    """

    def __init__(self) -> None:
        super().__init__('superpoint_matcher', CONFIGURATIONS)
        self._streams: dict[str, FeatureStream] = {}
        self._matchers: list[CameraMatcher | PairMatcher] = []
        self._fifo: Fifo[tuple[FeatureStream, Arrival]] | None = None
        self.create_timer(0.5, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def configure(self) -> None:
        config, match_config = read(self, MatcherConfig), read(self, MatchConfig)
        pairs = [_split(pair) for pair in config.pairs]
        for what, names in (('cameras', config.cameras), ('pairs', config.pairs)):
            if len(set(names)) != len(names):
                raise ValueError(f'{what}: a name stands twice in {", ".join(names)}')
        cameras = config.cameras or (() if pairs else ('',))
        calibrated = config.geometry == 'essential'
        for name in dict.fromkeys([*cameras, *(name for pair in pairs for name in pair)]):
            stream = FeatureStream(self, name, config.qos_reliability, config.image_transport, calibrated)
            self._streams[name] = stream
        for name in cameras:
            tracker_config = read(self, TrackerConfig)
            self._matchers.append(CameraMatcher(self, self._streams[name], config, match_config, tracker_config))
        for first, second in pairs:
            topic = 'matches' if len(pairs) == 1 else f'{first}/{second}/matches'
            streams = self._streams[first], self._streams[second]
            self._matchers.append(PairMatcher(self, topic, streams, config, match_config))

    def activate(self) -> None:
        depth = read(self, MatcherConfig).depth
        self._fifo = Fifo(self._process, lambda name: self._streams[name].statistics.drop(), depth)
        for matcher in self._matchers:
            matcher.reset()
        for stream in self._streams.values():
            stream.subscribe(partial(self._receive, stream))

    def deactivate(self) -> None:
        if self._fifo:
            self._fifo.stop()
            self._fifo = None
        for stream in self._streams.values():
            stream.unsubscribe()

    def cleanup(self) -> None:
        for matcher in self._matchers:
            matcher.destroy()
        self._matchers, self._streams = [], {}

    def reconfigure(self, options: dict[str, Any]) -> None:
        for matcher in self._matchers:
            matcher.configure(options)

    def report(self) -> list[DiagnosticStatus]:
        return [matcher.report() for matcher in self._matchers]

    def _watch(self) -> None:
        for stream in self._streams.values():
            stream.watch(self.active and any(m.output.drawing and stream in m.streams for m in self._matchers))

    def _receive(self, stream: FeatureStream, arrival: Arrival) -> None:
        if self._fifo:
            self._fifo.put(stream.name, (stream, arrival))

    def _process(self, item: tuple[FeatureStream, Arrival]) -> None:
        """Runs in the thread of the queue."""
        stream, arrival = item
        try:
            frame = stream.read(arrival)
        except Exception as error:  # noqa: BLE001 - counted and logged; the next message must find the node working
            stream.fail(error)
            return
        for matcher in self._matchers:
            if stream in matcher.streams:
                try:
                    matcher.take(stream, frame, arrival.received_at)
                except Exception as error:  # noqa: BLE001 - as above
                    stream.fail(error)


def _split(pair: str) -> tuple[str, str]:
    first, _, second = pair.partition(':')
    if not first or not second or ':' in second or first == second:
        raise ValueError(f'pairs: {pair!r} is not two names of cameras as in left:right')
    return first, second


def main(args: list[str] | None = None) -> None:
    """Entry point of `ros2 run superpoint_ros superpoint_matcher`."""
    sys.exit(run(MatcherNode, args))
