"""OpenCV's detectors and features, and chance, through the same interface as our models: a gray image to Features.

RootSIFT (Arandjelović and Zisserman, CVPR 2012) is SIFT with the square root of L1-normalized descriptors.

Scores are OpenCV's responses. Descriptors come as unit rows, so one matcher serves all: for SIFT that ranks as
Euclidean distance does (its descriptors have nearly equal lengths), for binary descriptors, whose bits become ±1,
exactly as Hamming distance does: cosine = 1 − 2 · distance / bits.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.decode import DecodeConfig, find_peaks
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.features import Features, Floats

Image = npt.NDArray[np.uint8]
Extract = Callable[[Image], Features]
Baseline = Callable[[Setting], Extract]


def detectors() -> dict[str, Baseline]:
    """The detectors of the paper's tables 3 and 5, and keypoints at random, which any detector must beat."""
    return {'FAST': _fast, 'Harris': _harris, 'Shi-Tomasi': _shi_tomasi, 'random': _random}


def descriptors() -> dict[str, Baseline]:
    """The features that the installed OpenCV has; AKAZE went to opencv_contrib with OpenCV 5."""
    found: dict[str, Baseline] = {
        'SIFT': lambda setting: _features(cv2.SIFT.create(nfeatures=setting.candidates), setting),
        'RootSIFT': lambda setting: _root(_features(cv2.SIFT.create(nfeatures=setting.candidates), setting)),
        'ORB': lambda setting: _features(cv2.ORB.create(nfeatures=setting.candidates), setting),
    }
    akaze = getattr(cv2, 'AKAZE', None)
    if akaze is not None:
        found['AKAZE'] = lambda setting: _features(akaze.create(), setting)
    return found


def _fast(setting: Setting) -> Extract:
    detector = cv2.FastFeatureDetector.create()

    def extract(image: Image) -> Features:
        found = detector.detect(image, None)
        response = np.zeros(image.shape, np.float32)
        for point in found:
            response[int(point.pt[1]), int(point.pt[0])] = point.response
        return _peaks(response, setting)

    return extract


def _harris(setting: Setting) -> Extract:
    return lambda image: _peaks(_local_maxima(cv2.cornerHarris(image, 3, 3, 0.04), setting.quality), setting)


def _shi_tomasi(setting: Setting) -> Extract:
    return lambda image: _peaks(_local_maxima(cv2.cornerMinEigenVal(image, 3, ksize=3), setting.quality), setting)


def _random(setting: Setting) -> Extract:
    def extract(image: Image) -> Features:
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))  # other points in every image, the same in every run
        return _peaks(rng.random(image.shape, np.float32), setting)

    return extract


def _local_maxima(response: npt.NDArray[Any], quality: float) -> Floats:
    """The response where it is the highest of its 3×3 pixels and strong enough, else 0, as goodFeaturesToTrack does."""
    keep = (response == cv2.dilate(response, np.ones((3, 3), np.uint8))) & (response > quality * response.max())
    return np.where(keep, np.maximum(response, 0), 0).astype(np.float32)


def _peaks(response: Floats, setting: Setting) -> Features:
    """The best pixels of a response map, by the same non-maximum suppression as our models'."""
    height, width = response.shape
    config = DecodeConfig(
        threshold=0.0, max_keypoints=setting.candidates, nms_radius=setting.nms_radius, border=setting.border
    )
    y, x = find_peaks(response, (width, height), config)
    nothing = np.empty((len(x), 0), np.float32)
    return Features(np.stack([x, y], axis=1).astype(np.float32), response[y, x], nothing, (width, height))


def _features(algorithm: Any, setting: Setting) -> Extract:
    def extract(image: Image) -> Features:
        size = (image.shape[1], image.shape[0])
        found, rows = algorithm.detectAndCompute(image, None)
        if rows is None:  # nothing found
            rows = np.empty((0, algorithm.descriptorSize()), np.float32)
        keypoints = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        scores = np.array([point.response for point in found], np.float32)
        inside = (keypoints >= setting.border) & (keypoints < np.subtract(size, setting.border))
        keep = np.flatnonzero(inside.all(axis=1))
        keep = keep[np.argsort(-scores[keep], kind='stable')]
        if setting.nms_all:
            keep = keep[_thin(keypoints[keep], setting.nms_radius)]
        keep = keep[: setting.candidates]
        return Features(keypoints[keep], scores[keep], _unit_rows(rows[keep]), size)

    return extract


def _root(extract: Extract) -> Extract:
    """Square roots of non-negative descriptors whose elements are scaled to a sum of 1: unit rows again."""

    def root(image: Image) -> Features:
        features = extract(image)
        totals = np.maximum(features.descriptors.sum(axis=1, keepdims=True), 1e-12)
        return dataclasses.replace(features, descriptors=np.sqrt(features.descriptors / totals))

    return root


def _thin(keypoints: Floats, radius: int) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression of keypoints, best first, at whole pixels: the indices that stay."""
    whole = np.rint(keypoints).astype(int) + radius
    free = np.ones((whole.max(initial=0) + radius + 1,) * 2, bool)
    kept = []
    for i, (x, y) in enumerate(whole):
        if free[y, x]:
            free[y - radius : y + radius + 1, x - radius : x + radius + 1] = False
            kept.append(i)
    return np.array(kept, np.intp)


def _unit_rows(descriptors: npt.NDArray[Any]) -> Floats:
    rows = descriptors.astype(np.float32)
    if descriptors.dtype == np.uint8:
        rows = np.unpackbits(descriptors, axis=1).astype(np.float32) * 2 - 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
