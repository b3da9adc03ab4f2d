"""The superpoint_detector node: images in, features out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticStatus

from superpoint_ros import image_files
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor
from superpoint_ros.images import Gray, gray
from superpoint_ros.ros.detector_config import CONFIGURATIONS, EXTRACTOR_CONFIGURATIONS, DetectorConfig
from superpoint_ros.ros.detector_topics import DetectorTopics
from superpoint_ros.ros.lifecycle import ManagedNode
from superpoint_ros.ros.mask_topic import Arrival
from superpoint_ros.ros.parameters import read
from superpoint_ros.ros.process import run
from superpoint_ros.ros.topic_names import check_cameras
from superpoint_ros.ros.worker import Worker
from superpoint_ros.runtimes import Watch


class DetectorNode(ManagedNode):
    """Publishes the features of the images of one or more cameras; see docs/topics-and-parameters.md.

    The network runs in a worker thread on the newest image of each camera. Images of several cameras that wait at the
    same time run as one batch.

    Args:
        make_extractor: makes the Extractor when the node is configured.
    """

    def __init__(self, make_extractor: Callable[..., Extractor] = Extractor) -> None:
        super().__init__('superpoint_detector', CONFIGURATIONS)
        self._make_extractor = make_extractor
        self._extractor: Extractor | None = None
        self._worker: Worker[Arrival] | None = None
        self._cameras: dict[str, DetectorTopics] = {}
        self._facts: dict[str, str] = {}
        self._preparing = ''
        self._cancel = threading.Event()

    def configure(self) -> None:
        config = read(self, DetectorConfig)
        names = config.cameras or ('',)
        check_cameras('cameras', names)
        if len(config.mask) not in (0, 1, len(names)):
            raise ValueError(
                f'mask: expected one mask, or one for each of {len(names)} cameras, got {len(config.mask)}'
            )
        masks = [_read_mask(path) for path in config.mask]
        options = {k: v for cls in EXTRACTOR_CONFIGURATIONS for k, v in vars(read(self, cls)).items()}
        self._cancel.clear()
        watch = Watch(self._prepare, self._cancel)
        extractor = self._extractor = self._make_extractor(config.model, watch=watch, **options)
        extractor.runtime.network.keep(len(names) * extractor.config.octaves)
        self._preparing = ''
        self._facts = {
            'model': extractor.model.name,
            'back end': extractor.runtime.name,
            'device': extractor.runtime.device,
            'precision': extractor.runtime.precision,
        }
        for index, name in enumerate(names):
            mask = masks[index % len(masks)] if masks else None
            self._cameras[name] = DetectorTopics(self, name, mask, config, extractor)
        self.get_logger().info(', '.join(f'{key} {value}' for key, value in self._facts.items()))

    def activate(self) -> None:
        self._cancel.clear()
        self._worker = Worker(
            self._process, self.log_unexpected, lambda name: self._cameras[name].input.statistics.drop()
        )
        for name, camera in self._cameras.items():
            camera.subscribe(partial(self._worker.put, name))

    def deactivate(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()
        self._cancel.set()
        if self._worker:
            self._worker.stop()
            self._worker = None

    def cleanup(self) -> None:
        self._cameras = {}
        self._extractor = None

    def apply_parameters(self) -> None:
        if self._extractor:
            self._extractor.decode_config = read(self, DecodeConfig)

    def report(self) -> list[DiagnosticStatus]:
        statuses = [camera.report(self._facts) for camera in self._cameras.values()]
        if preparing := self._preparing:
            for status in statuses:
                status.level, status.message = DiagnosticStatus.WARN, preparing
        return statuses

    def _prepare(self, what: str, fraction: float) -> None:
        """Note the progress of building an engine; called from any thread."""
        self._preparing = f'{what}: {fraction:.0%}'
        if not self.running:  # a signal cannot end the transition that is waiting for the engine
            self._cancel.set()

    def _process(self, arrivals: dict[str, Arrival]) -> None:
        """Publish the features of one image of each camera; runs in the worker thread."""
        assert self._extractor
        inputs: dict[str, tuple[Gray, Gray | None]] = {}
        for name, arrival in arrivals.items():
            camera = self._cameras[name]
            with camera.input.guard():
                inputs[name] = gray(arrival.image), camera.mask_of(arrival)
        results = self._extractor.batch(*zip(*inputs.values(), strict=True)) if inputs else []
        self._preparing = ''
        for (name, (image, _)), result in zip(inputs.items(), results, strict=True):
            with self._cameras[name].input.guard():
                if isinstance(result, Exception):
                    raise result
                self._cameras[name].publish(result, image, arrivals[name].image.header, arrivals[name].received_at)


def _read_mask(path: str) -> npt.NDArray[np.uint8]:
    try:
        # Not scaled to 8 bits, which would make small values 0.
        return (image_files.read_stored(Path(path)) != 0).astype(np.uint8)
    except ValueError as error:
        raise ValueError(f'mask {error}') from None


def main() -> None:
    """Run superpoint_detector, with the arguments of the command line."""
    sys.exit(run(DetectorNode))
