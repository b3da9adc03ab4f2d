"""Images for the benchmark."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from superpoint_ros import image_files
from superpoint_ros.features import Image


def pictures(folder: Path | None) -> tuple[list[Image], str]:
    """The first gray images of a folder, or the photographs of scikit-image, and a description.

    Raises:
        ImportError: no folder is given, and scikit-image is not installed.
        FileNotFoundError: the folder has no images.
        ValueError: an image cannot be read.
    """
    if folder is None:
        from superpoint_ros.demo.scene import photographs

        return photographs(), 'photographs of scikit-image (motorcycle, astronaut, coffee, camera)'
    found = [image_files.read(path) for path in image_files.files_in(folder)[:8]]
    return found, f'the first {len(found)} pictures of {folder}'


def fit(picture: Image, size: tuple[int, int]) -> Image:
    """Shrink and crop an image to this (width, height), or extend it with its mirror images if it is too small.

    It is never enlarged: the blur would leave fewer keypoints than in the image of a camera.
    """
    width, height = size
    scale = max(width / picture.shape[1], height / picture.shape[0])
    if scale < 1:
        shrunk = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    missing = [(0, max(0, height - picture.shape[0])), (0, max(0, width - picture.shape[1]))]
    return np.ascontiguousarray(np.pad(picture, missing, mode='symmetric')[:height, :width])
