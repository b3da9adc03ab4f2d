"""Images to features: prepare, run the network, decode, map back to the pixels of the original image."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros import image_files, models, runtimes
from superpoint_ros.clouds import features_info
from superpoint_ros.config import check, option, split
from superpoint_ros.decode import CELL, DecodeConfig, Mask, decode
from superpoint_ros.features import Features, joined
from superpoint_ros.geometry import Transform, resize_transform, transform_points
from superpoint_ros.image_files import eight_bits
from superpoint_ros.runtimes import RuntimeConfig, Watch

Image = npt.NDArray[Any]
T = TypeVar('T')

SMALLEST, LARGEST = 16, 8192
"""Limits of the sides of an image, in pixels."""

OVERSHOOT = 0.01
"""Floats this far outside 0 to 1, as interpolation produces them, are clipped."""

GRAY_CODES = {1: None, 3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}
"""OpenCV's conversion to gray for each number of channels."""


@dataclass(frozen=True)
class ExtractorConfig:
    """Sizes of the image at the network."""

    resize: int = option(
        640,
        'Longest side of the image for the network: larger images are shrunk to it, smaller ones are not enlarged; 0 '
        'keeps every size.',
        unit='px',
        minimum=0,
        maximum=LARGEST,
    )
    octaves: int = option(
        1,
        'Number of image sizes to extract from, each half the one before. With 2, points also match when their '
        'distance halves or doubles, and extraction takes a quarter longer. The best keypoints of all sizes are kept; '
        'nms_radius applies within each size.',
        minimum=1,
        maximum=4,
    )

    def __post_init__(self) -> None:
        check(self)
        if 0 < self.resize < SMALLEST:
            raise ValueError(f'resize: {self.resize} is out of range, expected 0, or {SMALLEST} to {LARGEST} px')


class Prepared(NamedTuple):
    """An image as the network takes it."""

    pixels: npt.NDArray[np.uint8]
    """(H, W) gray, H and W multiples of 8; outside `size` the edge is repeated."""
    size: tuple[int, int]
    """(width, height) of the picture, which is at the top left; the rest is padding."""
    transform: Transform
    """(3, 3), from these pixels to those of the original image."""
    image_size: tuple[int, int]
    """(width, height) of the original image."""
    mask: Mask | None = None
    """(h, w) of the picture, False where keypoints are not allowed."""
    image_mask: Image | None = None
    """The given mask, of the size of the original image."""


class Extractor:
    """Finds keypoints and describes them.

    Args:
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        watch: reports the progress of building a TensorRT engine, and can cancel it.
        options: any field of ExtractorConfig, runtimes.RuntimeConfig and decode.DecodeConfig.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option is out of range, or the model's file is broken.
        FileNotFoundError: no such model.
        ImportError: the back end is not installed.

    Example:
        >>> extractor = Extractor('superpoint', backend='openvino', max_keypoints=500)
        >>> features = extractor(cv2.imread('image.png'))
    """

    def __init__(self, model: str = models.DEFAULT, watch: Watch | None = None, **options: Any) -> None:
        own, runtime, decoding = split(options, ExtractorConfig, RuntimeConfig, DecodeConfig)
        self.config = ExtractorConfig(**own)
        self.decode_config = DecodeConfig(**decoding)
        """Which keypoints are taken; may be replaced between calls."""
        self.model = models.resolve(model)
        self.runtime = runtimes.load(self.model, RuntimeConfig(**runtime), watch)

    def __call__(self, image: Image, mask: Image | None = None) -> Features:
        """Extract the features of one image.

        Args:
            image: uint8, uint16 or float (0 to 1), gray (H, W) or (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), each
                side 16 to 8192 pixels.
            mask: (H, W) bool or uint8, 0 where keypoints are not allowed.

        Raises:
            ValueError: the image or the mask is not as described; the message says how.
        """
        (result,) = self.batch([image], [mask])
        if isinstance(result, Exception):
            raise result
        return result

    def batch(self, images: Sequence[Image], masks: Sequence[Image | None] | None = None) -> list[Features | Exception]:
        """Extract the features of several images of any sizes; images of one prepared size run in one call.

        Images and masks are as in `__call__`, with a mask or None for each image.

        Returns:
            For each image its features, or the error that `__call__` would raise: a bad image does not affect others.
        """
        errors: dict[int, Exception] = {}
        groups: dict[tuple[int, ...], list[tuple[int, Prepared]]] = defaultdict(list)
        masks = [None] * len(images) if masks is None else masks
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            try:
                for prepared in octaves_of(prepare(image, self.config.resize, mask), self.config.octaves):
                    groups[prepared.pixels.shape].append((index, prepared))
            except ValueError as error:
                errors[index] = error
        found: dict[int, list[Features]] = defaultdict(list)
        for group in groups.values():
            try:
                heads_of_images = self.runtime([prepared.pixels for _, prepared in group])
                for (index, prepared), heads in zip(group, heads_of_images, strict=True):
                    decoded = decode(heads, prepared.size, self.decode_config, prepared.mask)
                    found[index].append(finish(decoded, prepared))
            except Exception as error:  # noqa: BLE001 - whatever a back end raises concerns this group only
                errors |= dict.fromkeys((index for index, _ in group), error)
        # With pop, nothing here refers to an error, whose traceback refers to this frame and so to the images.
        return [errors.pop(i) if i in errors else self._best(found[i]) for i in range(len(images))]

    def info(self, descriptor_type: str, image_size: tuple[int, int]) -> str:
        """The text of features/info for features of images of this size; see clouds.features_info."""
        runtime = self.runtime
        return features_info(self.model.name, runtime.checksum, runtime.descriptor_size, descriptor_type, image_size)

    def _best(self, octaves: Sequence[Features]) -> Features:
        """The best keypoints of all octaves of an image."""
        best = octaves[0]
        if len(octaves) > 1:
            every = joined(octaves)
            best = every[np.argsort(-every.scores, kind='stable')[: self.decode_config.max_keypoints]]
        return dataclasses.replace(best, checksum=self.runtime.checksum)


def from_file(path: Path, extract: Callable[[npt.NDArray[np.uint8]], T]) -> tuple[npt.NDArray[np.uint8], T]:
    """Read an image file as (H, W) gray, and return it with what `extract`, such as an Extractor, makes of it.

    Raises:
        ValueError: the file cannot be read, or `extract` refuses the image; the message names the file.
    """
    image = image_files.read(path)
    try:
        return image, extract(image)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def prepare(image: Image, resize: int, mask: Image | None = None) -> Prepared:
    """Convert an image for the network: 8-bit gray, shrunk, padded to multiples of 8.

    Arguments and errors are those of Extractor.__call__, and `resize` is that of ExtractorConfig.
    """
    gray = to_gray(image)
    height, width = gray.shape
    size = (width, height)
    if resize and max(size) > resize:
        scale = resize / max(size)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return _resized(gray, size, (width, height), mask)


def octaves_of(prepared: Prepared, count: int) -> list[Prepared]:
    """A prepared image and its smaller copies, each half the size of the one before, while they are large enough."""
    octaves = [prepared]
    while len(octaves) < count and min(size := octaves[-1].size) >= 2 * SMALLEST:
        picture = octaves[-1].pixels[: size[1], : size[0]]
        half = (round(size[0] / 2), round(size[1] / 2))
        octaves.append(_resized(picture, half, prepared.image_size, prepared.image_mask))
    return octaves


def _resized(
    gray: npt.NDArray[np.uint8], size: tuple[int, int], image_size: tuple[int, int], mask: Image | None
) -> Prepared:
    """A gray picture at this (width, height), padded to multiples of 8."""
    if gray.shape != size[::-1]:
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
    right, bottom = -size[0] % CELL, -size[1] % CELL
    if right or bottom:
        gray = np.asarray(cv2.copyMakeBorder(gray, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    transform = resize_transform(image_size[0] / size[0], image_size[1] / size[1])
    small_mask = None if mask is None else prepare_mask(mask, image_size, size, transform)
    return Prepared(gray, size, transform, image_size, small_mask, mask)


def prepare_mask(mask: Image, image_size: tuple[int, int], size: tuple[int, int], transform: Transform) -> Mask:
    """Resize a mask to the prepared picture; the arguments are those of Prepared.

    Raises:
        ValueError: the mask is not (H, W) bool or uint8 of the image's size.
    """
    width, height = image_size
    if getattr(mask, 'shape', None) != (height, width) or mask.dtype not in (np.uint8, np.bool_):
        found = f'{mask.dtype} of {mask.shape}' if isinstance(mask, np.ndarray) else f'{mask!r:.100}'
        raise ValueError(f'mask: expected bool or uint8 of shape {(height, width)} as the image, got {found}')
    columns, rows = size
    diagonal = np.arange(max(size), dtype=np.float32)
    x, y = transform_points(transform, np.stack([diagonal, diagonal], axis=1)).T
    nearest = np.ix_(_pixels(y[:rows], height), _pixels(x[:columns], width))
    return np.asarray(mask[nearest] != 0)


def to_gray(image: Image) -> npt.NDArray[np.uint8]:
    """Convert an image to 8-bit gray, (H, W).

    Raises:
        ValueError: as in Extractor.__call__.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f'image: expected a NumPy array, got {image!r:.100}')
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in GRAY_CODES):
        raise ValueError(f'image: expected shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}')
    if not all(SMALLEST <= side <= LARGEST for side in image.shape[:2]):
        raise ValueError(f'image: {image.shape[1]}×{image.shape[0]} pixels, expected each side {SMALLEST} to {LARGEST}')
    if image.dtype.kind == 'f':
        image = image.astype(np.float32, copy=False)
    elif image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'image: expected uint8, uint16 or float, got {image.dtype}')
    if image.ndim == 3:
        code = GRAY_CODES[image.shape[2]]
        image = image[..., 0] if code is None else np.asarray(cv2.cvtColor(image, code))
    if image.dtype.kind != 'f':
        return eight_bits(image)
    low, high = float(image.min()), float(image.max())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # also if they are NaN
        raise ValueError(f'image: expected floats from 0 to 1, got {low:g} to {high:g}')
    return np.asarray(cv2.convertScaleAbs(np.maximum(image, 0), alpha=255), np.uint8)


def finish(decoded: Features, prepared: Prepared) -> Features:
    """Features of the prepared picture in the pixels of the original image, none where its mask is 0."""
    keypoints = transform_points(prepared.transform, decoded.keypoints)
    features = dataclasses.replace(decoded, keypoints=keypoints, image_size=prepared.image_size)
    if (mask := prepared.image_mask) is None:
        return features
    width, height = prepared.image_size
    return features[mask[_pixels(keypoints[:, 1], height), _pixels(keypoints[:, 0], width)] != 0]


def _pixels(positions: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.intp]:
    """The nearest pixels along a side of this size."""
    return np.rint(positions).astype(np.intp).clip(0, size - 1)
