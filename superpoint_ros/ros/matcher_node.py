"""The superpoint_matcher node: features in, matches and tracks out."""

from __future__ import annotations

import sys
import threading
from functools import partial

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]

from superpoint_ros.learned_matching import NEAREST, LearnedMatcher
from superpoint_ros.matching import MatchConfig
from superpoint_ros.ros.feature_stream import Arrival, FeatureStream
from superpoint_ros.ros.lifecycle import ManagedNode
from superpoint_ros.ros.matcher_config import CONFIGURATIONS, Configs, MatcherConfig
from superpoint_ros.ros.matchers import CameraMatcher, PairMatcher
from superpoint_ros.ros.parameters import read
from superpoint_ros.ros.process import run
from superpoint_ros.ros.topic_names import check_cameras
from superpoint_ros.ros.worker import Worker
from superpoint_ros.runtimes import Watch
from superpoint_ros.tracking import TrackerConfig


class MatcherNode(ManagedNode):
    """Publishes matches and tracks of the features of one or more cameras; see docs/topics-and-parameters.md.

    Matching runs in a worker thread. The frames of a camera are processed in the order in which they arrive.
    """

    def __init__(self) -> None:
        super().__init__('superpoint_matcher', CONFIGURATIONS)
        self._streams: dict[str, FeatureStream] = {}
        self._matchers: list[CameraMatcher | PairMatcher] = []
        self._learned: LearnedMatcher | None = None
        self._cancel = threading.Event()
        self._worker: Worker[Arrival] | None = None
        self.create_timer(0.5, self._update_drawing, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def configure(self) -> None:
        configs = self._configs()
        config = configs.node
        pairs = [_split(pair) for pair in config.pairs]
        check_cameras('cameras', config.cameras)
        if len(set(pairs)) != len(pairs):
            raise ValueError(f'pairs: expected different pairs, got {", ".join(config.pairs)}')
        self._cancel.clear()
        if config.matcher != NEAREST:
            options = {name: getattr(config, name) for name in ('backend', 'device', 'threads')}
            watch = Watch(cancel=self._cancel)
            self._learned = LearnedMatcher(config.matcher, configs.match.min_similarity, watch, **options)
            network = self._learned.runtime.network
            self.get_logger().info(f'matcher {self._learned.model.name}, {network.device}, {network.precision}')
        cameras = config.cameras or (() if pairs else ('',))
        for name in dict.fromkeys([*cameras, *(name for pair in pairs for name in pair)]):
            self._streams[name] = FeatureStream(self, name, config)
        for name in cameras:
            self._matchers.append(CameraMatcher(self, self._streams[name], configs, self._learned))
        for first, second in pairs:
            topic = 'matches' if len(pairs) == 1 else f'{first}/{second}/matches'
            streams = self._streams[first], self._streams[second]
            self._matchers.append(PairMatcher(self, topic, streams, configs, self._learned))

    def activate(self) -> None:
        self._cancel.clear()
        depth = read(self, MatcherConfig).depth
        worker = Worker(
            self._process, self.log_unexpected, lambda name: self._streams[name].input.statistics.drop(), depth
        )
        self._worker = worker
        for matcher in self._matchers:
            matcher.reset()
        for name, stream in self._streams.items():
            stream.subscribe(partial(worker.put, name))

    def deactivate(self) -> None:
        self._cancel.set()
        if self._worker:
            self._worker.stop()
            self._worker = None
        for stream in self._streams.values():
            stream.unsubscribe()

    def cleanup(self) -> None:
        self._matchers, self._streams, self._learned = [], {}, None

    def apply_parameters(self) -> None:
        configs = self._configs()
        if self._learned:
            self._learned.min_similarity = configs.match.min_similarity
        for stream in self._streams.values():
            stream.config = configs.node
        for matcher in self._matchers:
            matcher.set_configs(configs)

    def report(self) -> list[DiagnosticStatus]:
        return [matcher.report() for matcher in self._matchers]

    def _configs(self) -> Configs:
        return Configs(read(self, MatcherConfig), read(self, MatchConfig), read(self, TrackerConfig))

    def _update_drawing(self) -> None:
        """Receive images only while their matches/image has a subscriber."""
        for stream in self._streams.values():
            drawing = any(matcher.output.drawing for matcher in self._matchers if stream in matcher.streams)
            stream.keep_images(self.active and drawing)

    def _process(self, arrivals: dict[str, Arrival]) -> None:
        """Process one frame of each camera; runs in the worker thread."""
        for name, arrival in arrivals.items():
            stream = self._streams[name]
            with stream.input.guard():
                frame = arrival.frame()
                for matcher in self._matchers:
                    if stream in matcher.streams:
                        with stream.input.guard():  # the other matchers get the frame too
                            matcher.take(stream, frame, arrival.received_at)


def _split(pair: str) -> tuple[str, str]:
    first, _, second = pair.partition(':')
    if not first or not second or ':' in second or first == second:
        raise ValueError(f'pairs: expected two names of cameras as in left:right, got {pair!r}')
    check_cameras('pairs', (first, second))
    return first, second


def main() -> None:
    """Run superpoint_matcher, with the arguments of the command line."""
    sys.exit(run(MatcherNode))
