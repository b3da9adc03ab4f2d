"""The images that are timed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def pictures(folder: Path | None) -> tuple[list[Picture], str]:
    """Gray pictures, and in words which they are: those of a folder, or photographs that scikit-image ships.

    Raises:
        ImportError: no folder is given, and scikit-image is not installed.
        ValueError: the folder has no pictures, or one that OpenCV cannot read.
    """
    if folder is None:
        from superpoint_ros.demo.scene import photographs

        return photographs(), 'photographs of scikit-image (motorcycle, astronaut, coffee, camera)'
    paths = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not paths:
        raise ValueError(f'{folder}: expected a folder with pictures')
    found = []
    for path in paths[:8]:
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise ValueError(f'{path}: not a picture that OpenCV can read')
        found.append(np.asarray(picture, np.uint8))
    return found, f'the first {len(found)} pictures of {folder}'


def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture of exactly this (width, height): shrunk as far as needed and cut, or continued by its mirror images.

    Never enlarged: the blur would leave fewer keypoints than a camera's image has.
    """
    width, height = size
    scale = max(width / picture.shape[1], height / picture.shape[0])
    if scale < 1:
        shrunk = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    missing = [(0, max(0, height - picture.shape[0])), (0, max(0, width - picture.shape[1]))]
    return np.ascontiguousarray(np.pad(picture, missing, mode='symmetric')[:height, :width])
