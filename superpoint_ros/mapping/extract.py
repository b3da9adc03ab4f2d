"""Features of image files, each in an .npz file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from superpoint_ros import feature_files
from superpoint_ros.extractor import Extractor, from_file
from superpoint_ros.features import Features, Image
from superpoint_ros.geometry import resize_transform, transform_points


def extract(folder: Path, names: Sequence[str], output: Path, extractor: Extractor) -> dict[str, str]:
    """Extract the features of images, named by their paths below a folder, to OUTPUT/NAME.npz; existing files are kept.

    Images that are smaller than the extractor's `resize` are enlarged to it, at most to twice their size: that makes
    the positions of keypoints better, as it does in COLMAP's SIFT.

    Returns:
        For each broken image, by name, a sentence on what is wrong with it.
    """
    failed = {}
    missing = [name for name in names if not (output / f'{name}.npz').exists()]
    for name in track(missing, 'extracting', console=Console(stderr=True)):
        try:
            _, features = from_file(folder / name, partial(enlarged, extractor=extractor))
        except ValueError as error:
            failed[name] = str(error)
            continue
        feature_files.write_npz(output / f'{name}.npz', features)
    return failed


def scale(size: tuple[int, int], resize: int) -> float:
    """How many pixels the network sees for each pixel in a row of an image of this size."""
    return min(2.0, resize / max(size)) if resize else 1.0


def enlarged(image: Image, extractor: Extractor) -> Features:
    """The features of an image from an enlarged copy of it, in the pixels of the image."""
    height, width = image.shape
    factor = scale((width, height), extractor.config.resize)
    if factor <= 1:
        return extractor(image)
    size = (round(width * factor), round(height * factor))
    features = extractor(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8))
    back = resize_transform(width / size[0], height / size[1])
    keypoints = transform_points(back, features.keypoints).astype(np.float32)
    np.clip(keypoints, 0, np.array([width - 1, height - 1], np.float32), out=keypoints)
    return replace(features, keypoints=keypoints, image_size=(width, height))
