"""Where the demo's camera takes its images from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros import image_files
from superpoint_ros.demo.scene import Scene, photographs

Picture = npt.NDArray[np.uint8]

PHOTOGRAPHS = 'photographs'
"""The source that shows a scene with known motion."""


def open_source(source: str, rng: np.random.Generator) -> Callable[[float], Picture]:
    """A function that gives the gray (H, W) image at a time in seconds.

    Args:
        source: 'photographs', the number of a webcam, a video file, or a folder of images; video and folder start anew
            when they end.
        rng: for the sensor noise of the photographs' camera.

    Raises:
        FileNotFoundError: no such file, or no image in the folder.
        ValueError: OpenCV cannot open the video or the webcam.
    """
    if source == PHOTOGRAPHS:
        scene = Scene(photographs())
        return lambda time: scene.image(time, rng)
    if source.isdecimal():
        pictures = _play(int(source), f'webcam {source}', loop=False)
    else:
        path = Path(source).expanduser()
        if not path.exists():
            raise FileNotFoundError(f'source {source}: no such file or folder')
        pictures = _folder(path) if path.is_dir() else _play(str(path), f'video {source}', loop=True)
    first = next(pictures)  # so that a source that does not work says so at once
    pictures = itertools.chain([first], pictures)
    return lambda _: next(pictures)


def _folder(folder: Path) -> Iterator[Picture]:
    return map(image_files.read, itertools.cycle(image_files.files_in(folder)))


def _play(what: Any, name: str, loop: bool) -> Iterator[Picture]:
    while True:
        video = cv2.VideoCapture(what)
        try:
            good, picture = video.read()
            if not good:
                raise ValueError(f'source {name}: OpenCV gets no image from it')
            while good:
                yield cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
                good, picture = video.read()
        finally:
            video.release()
        if not loop:
            raise ValueError(f'source {name}: no more images come')
