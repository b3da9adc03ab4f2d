"""OpenCV's detectors and features, and random keypoints, behind the interface of our models: a gray image to Features.

Scores are OpenCV's responses. Descriptors are unit rows, so that one matcher serves all. For SIFT, whose descriptors
have nearly equal lengths, this ranks as Euclidean distance does. Binary descriptors become ±1, which ranks exactly as
Hamming distance does: cosine = 1 − 2 · distance / bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.decode import DecodeConfig, find_peaks
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.features import Features, Floats, Image

Extract = Callable[[Image], Features]
Baseline = Callable[[Setting], Extract]


def detectors() -> dict[str, Baseline]:
    """The detectors of the paper's tables 3 and 5, and random keypoints, which any detector must beat."""
    responses = {'FAST': _fast, 'Harris': _harris, 'Shi-Tomasi': _shi_tomasi, 'random': _random}
    return {name: partial(_detector, response) for name, response in responses.items()}


def descriptors() -> dict[str, Baseline]:
    """The features of the installed OpenCV (AKAZE is in opencv_contrib since OpenCV 5), and RootSIFT."""
    algorithms: dict[str, Callable[[int], Any]] = {
        'SIFT': cv2.SIFT.create,
        'RootSIFT': cv2.SIFT.create,
        'ORB': cv2.ORB.create,
    }
    if akaze := getattr(cv2, 'AKAZE', None):
        algorithms['AKAZE'] = lambda _: akaze.create()
    return {name: partial(_features, name, algorithm) for name, algorithm in algorithms.items()}


def _fast(image: Image, _: float) -> Floats:
    response = np.zeros(image.shape, np.float32)
    for point in cv2.FastFeatureDetector.create().detect(image, None):
        response[int(point.pt[1]), int(point.pt[0])] = point.response
    return response


def _harris(image: Image, quality: float) -> Floats:
    return _local_maxima(cv2.cornerHarris(image, 3, 3, 0.04), quality)


def _shi_tomasi(image: Image, quality: float) -> Floats:
    return _local_maxima(cv2.cornerMinEigenVal(image, 3, ksize=3), quality)


def _random(image: Image, _: float) -> Floats:
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))  # depends on the image, but not on the run
    return rng.random(image.shape, np.float32)


def _local_maxima(response: npt.NDArray[Any], quality: float) -> Floats:
    """The response where it is the highest of its 3×3 pixels and strong enough, else 0, as goodFeaturesToTrack does."""
    keep = (response == cv2.dilate(response, np.ones((3, 3), np.uint8))) & (response > quality * response.max())
    return np.where(keep, np.maximum(response, 0), 0).astype(np.float32)


def _detector(respond: Callable[[Image, float], Floats], setting: Setting) -> Extract:
    """The best pixels of a response map, by the same non-maximum suppression as our models'."""
    config = DecodeConfig(0.0, setting.candidates, setting.nms_radius, setting.border)

    def extract(image: Image) -> Features:
        response, size = respond(image, setting.quality), (image.shape[1], image.shape[0])
        y, x = find_peaks(response, size, config)
        keypoints, nothing = np.stack([x, y], axis=1).astype(np.float32), np.empty((len(x), 0), np.float32)
        return Features(keypoints, response[y, x], nothing, size)

    return extract


def _features(name: str, create: Callable[[int], Any], setting: Setting) -> Extract:
    algorithm = create(setting.candidates)

    def extract(image: Image) -> Features:
        size = (image.shape[1], image.shape[0])
        found, rows = algorithm.detectAndCompute(image, None)
        if rows is None:  # no keypoints
            rows = np.empty((0, algorithm.descriptorSize()), np.float32)
        keypoints = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        scores = np.array([point.response for point in found], np.float32)
        inside = (keypoints >= setting.border) & (keypoints < np.subtract(size, setting.border))
        keep = np.flatnonzero(inside.all(axis=1))
        keep = keep[np.argsort(-scores[keep], kind='stable')]
        if setting.nms_all:
            keep = keep[_thin(keypoints[keep], setting.nms_radius)]
        keep = keep[: setting.candidates]
        # The name as checksum, so that no learned matcher takes them for a model's.
        return Features(keypoints[keep], scores[keep], _unit_rows(rows[keep], name == 'RootSIFT'), size, name)

    return extract


def _thin(keypoints: Floats, radius: int) -> npt.NDArray[np.intp]:
    """The indices that greedy non-maximum suppression keeps, of keypoints in order of score, at whole pixels."""
    whole = np.rint(keypoints).astype(int) + radius
    free = np.ones((whole.max(initial=0) + radius + 1,) * 2, bool)
    kept = []
    for i, (x, y) in enumerate(whole):
        if free[y, x]:
            free[y - radius : y + radius + 1, x - radius : x + radius + 1] = False
            kept.append(i)
    return np.array(kept, np.intp)


def _unit_rows(descriptors: npt.NDArray[Any], root: bool = False) -> Floats:
    """Unit rows; with `root`, of the square roots of the elements (Arandjelović and Zisserman, CVPR 2012)."""
    rows = descriptors.astype(np.float32)
    if descriptors.dtype == np.uint8:
        rows = np.unpackbits(descriptors, axis=1).astype(np.float32) * 2 - 1
    if root:
        rows = np.sqrt(rows)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
