"""The node superpoint_detector: images in, features out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticStatus

from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features
from superpoint_ros.images import Gray
from superpoint_ros.ros.camera import Camera
from superpoint_ros.ros.detector_config import CONFIGURATIONS, EXTRACTOR_CONFIGURATIONS, DetectorConfig
from superpoint_ros.ros.lifecycle import ManagedNode, run
from superpoint_ros.ros.parameters import read
from superpoint_ros.ros.worker import Worker
from superpoint_ros.runtimes import Watch


class DetectorNode(ManagedNode):
    """Publishes the features of the images of some cameras; topics and parameters are in the package's documentation.

    Inference runs in a thread of its own, always on the newest image of each camera; images of several cameras that
    are waiting run as one batch.

    Args:
        make_extractor: makes the Extractor when the node is configured.
    """

    def __init__(self, make_extractor: Callable[..., Extractor] = Extractor) -> None:
        super().__init__('superpoint_detector', CONFIGURATIONS)
        self._make_extractor = make_extractor
        self._extractor: Extractor | None = None
        self._worker: Worker[tuple[Any, float]] | None = None
        self._cameras: dict[str, Camera] = {}
        self._facts: dict[str, str] = {}
        self._preparing = ''
        self._cancel = threading.Event()

    def configure(self) -> None:
        config = read(self, DetectorConfig)
        names = config.cameras or ('',)
        if len(set(names)) != len(names):
            raise ValueError(f'cameras: a name stands twice in {", ".join(names)}')
        if len(config.mask) not in (0, 1, len(names)):
            raise ValueError(f'mask: {len(config.mask)} for {len(names)} cameras; give one for all, or one for each')
        masks = [_read_mask(path) for path in config.mask]
        options = {k: v for cls in EXTRACTOR_CONFIGURATIONS for k, v in vars(read(self, cls)).items()}
        watch = Watch(self._prepare, self._cancel)
        extractor = self._extractor = self._make_extractor(config.model, watch=watch, **options)
        self._facts = {
            'model': extractor.model.name,
            'back end': extractor.runtime.name,
            'device': extractor.runtime.device,
            'precision': extractor.runtime.precision,
        }
        for index, name in enumerate(names):
            mask = masks[index % len(masks)] if masks else None
            self._cameras[name] = Camera(self, name, mask, config, extractor)
        self.get_logger().info(', '.join(f'{key} {value}' for key, value in self._facts.items()))

    def activate(self) -> None:
        self._cancel.clear()
        self._worker = Worker(self._process, lambda name: self._cameras[name].statistics.drop())
        for camera in self._cameras.values():
            camera.subscribe(partial(self._receive, camera))

    def deactivate(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()
        self._cancel.set()
        if self._worker:
            self._worker.stop()
            self._worker = None

    def cleanup(self) -> None:
        for camera in self._cameras.values():
            camera.destroy()
        self._cameras = {}
        self._extractor = None

    def reconfigure(self, options: dict[str, Any]) -> None:
        if self._extractor:
            self._extractor.configure(**options)

    def report(self) -> list[DiagnosticStatus]:
        statuses = [camera.report(self._facts) for camera in self._cameras.values()]
        if preparing := self._preparing:
            for status in statuses:
                status.level, status.message = DiagnosticStatus.WARN, preparing
        return statuses

    def _prepare(self, what: str, fraction: float) -> None:
        """Called, from any thread, while the first image of a size waits for its engine."""
        self._preparing = f'{what}: {fraction:.0%}'

    def _receive(self, camera: Camera, message: Any) -> None:
        if self._worker:
            self._worker.put(camera.name, (message, camera.statistics.receive()))

    def _process(self, frames: dict[str, tuple[Any, float]]) -> None:
        """Runs in the worker's thread: the newest image of each camera that has one, as one batch."""
        pictures: dict[str, Gray] = {}
        for name, (message, _) in frames.items():
            try:
                pictures[name] = self._cameras[name].convert(message)
            except Exception as error:  # noqa: BLE001 - counted and logged; the next image must find the node working
                self._cameras[name].fail(error)
        for name, features in self._extract(pictures).items():
            message, received_at = frames[name]
            try:
                if isinstance(features, Exception):
                    raise features
                self._cameras[name].publish(features, pictures[name], message.header, received_at)
            except Exception as error:  # noqa: BLE001 - as above
                self._cameras[name].fail(error)

    def _extract(self, pictures: dict[str, Gray]) -> dict[str, Features | Exception]:
        if not pictures or not self._extractor:
            return {}
        masks = [self._cameras[name].mask for name in pictures]
        results = self._extractor.batch(list(pictures.values()), masks)
        self._preparing = ''
        return dict(zip(pictures, results, strict=True))


def _read_mask(path: str) -> npt.NDArray[np.uint8]:
    if not Path(path).is_file():
        raise FileNotFoundError(f'mask {path}: no such file')
    mask = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError(f'mask {path}: not a picture that OpenCV can read')
    return mask.astype(np.uint8, copy=False)


def main(args: list[str] | None = None) -> None:
    """Entry point of `ros2 run superpoint_ros superpoint_detector`."""
    sys.exit(run(DetectorNode, args))
