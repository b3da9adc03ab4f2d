"""Image sources of the demo's camera."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from superpoint_ros import image_files
from superpoint_ros.demo.scene import Scene, photographs
from superpoint_ros.features import Image

PHOTOGRAPHS = 'photographs'
"""The source that shows a scene with known motion."""

RATE = 30.0
"""Images per second of sources without a rate of their own."""


class Source(NamedTuple):
    """Where images come from."""

    image_at: Callable[[float], Image]
    """Returns the gray (H, W) image at a time in seconds; videos and folders return their next image."""
    rate: float = RATE
    """Images per second."""
    timed: bool = False
    """Whether the image depends on the time."""


def open_source(source: str, rng: np.random.Generator) -> Source:
    """Open a source, and read its first image.

    It is 'photographs', the number of a webcam, a video file, or a folder of images; videos and folders repeat. The
    generator makes the sensor noise of the camera in front of the photographs.

    Raises:
        FileNotFoundError: the file or folder does not exist, or the folder has no images.
        ValueError: the video or webcam cannot be opened, or an image cannot be read.
    """
    if source == PHOTOGRAPHS:
        scene = Scene(photographs())
        return Source(lambda time: scene.image(time, rng), timed=True)
    path = Path(source).expanduser()
    if source.isdecimal():
        rate, pictures = _video(int(source), f'webcam {source}', repeat=False)
    elif path.is_dir():
        rate, pictures = RATE, map(image_files.read, itertools.cycle(image_files.frames_in(path)))
    elif path.exists():
        rate, pictures = _video(str(path), f'video {source}', repeat=True)
    else:
        raise FileNotFoundError(f'source {source}: no such file or folder')
    pictures = itertools.chain([next(pictures)], pictures)
    return Source(lambda _: next(pictures), rate)


def _video(device: Any, name: str, repeat: bool) -> tuple[float, Iterator[Image]]:
    video = cv2.VideoCapture(device)
    rate = video.get(cv2.CAP_PROP_FPS)

    def frames() -> Iterator[Image]:
        while True:
            good, picture = video.read()
            if not good:
                raise ValueError(f'source {name}: OpenCV gets no image from it')
            while good:
                yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
                good, picture = video.read()
            if not repeat:
                raise ValueError(f'source {name}: no more images')
            video.open(device)

    return rate if 1 <= rate <= 240 else RATE, frames()
