"""Pairs of images with the true homography between them: from a folder in HPatches layout, or made from photographs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from superpoint_ros import image_files
from superpoint_ros.evaluation.noise import CAMERA, photometric
from superpoint_ros.features import Image
from superpoint_ros.geometry import (
    UNIT_SQUARE,
    Transform,
    adapt_homography,
    crop_transform,
    resize_transform,
    rotation,
    transform_points,
)

T = TypeVar('T')


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images of one plane, with a name that is fit for a file."""

    name: str
    split: str
    """A group that is reported besides 'all': 'illumination', 'viewpoint', or '' for none."""
    image0: Image
    image1: Image
    homography: Transform
    """(3, 3), from pixels of image 0 to pixels of image 1."""

    def fitted(self, size: tuple[int, int]) -> Pair:
        """The pair with both images fitted to a size, and the homography between the fitted images."""
        (image0, transform0), (image1, transform1) = fit(self.image0, size), fit(self.image1, size)
        return Pair(self.name, self.split, image0, image1, adapt_homography(self.homography, transform0, transform1))


PairLoader = Callable[[], Pair]


def fit(image: Image, size: tuple[int, int]) -> tuple[Image, Transform]:
    """Resize an image so that it just covers a (width, height), with its aspect ratio kept, and crop its center.

    Returns:
        The image of that size, and the (3, 3) transform of points from the given image to it.
    """
    height, width = image.shape
    scale = max(size[0] / width, size[1] / height)
    resized = (max(round(width * scale), size[0]), max(round(height * scale), size[1]))
    left, top = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2
    if resized != (width, height):
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, resized, interpolation=how), np.uint8)
    transform = crop_transform(left, top) @ resize_transform(resized[0] / width, resized[1] / height)
    return np.ascontiguousarray(image[top : top + size[1], left : left + size[0]]), transform


def shrink(image: Image, side: float) -> tuple[Image, Transform]:
    """Resize an image so that its longest side has so many pixels, rounded; a smaller one is left as it is.

    Returns:
        The image, and the (3, 3) transform of points from the given image to it.
    """
    height, width = image.shape
    scale = side / max(height, width)
    if scale >= 1:
        return image, np.eye(3)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    shrunk = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return shrunk, resize_transform(size[0] / width, size[1] / height)


def read_images(paths: Sequence[Path]) -> tuple[list[Image], list[str]]:
    """Read image files as gray; the second list has a sentence for each file that cannot be read."""
    images, failed = [], []
    for path in paths:
        try:
            images.append(image_files.read(path))
        except (OSError, ValueError) as error:
            failed.append(str(error))
    return images, failed


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items, evenly spread; all of them if `count` is 0 or there are no more."""
    if count <= 0 or count >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def hpatches(folder: Path) -> list[PairLoader]:
    """The pairs (1, k) of every scene of a folder in the layout of HPatches or of the Oxford affine covariant regions.

    A scene is a folder with images 1.ppm … 6.ppm and homographies H_1_2 …, or img1.ppm … and H1to2p …, in any image
    format and of any number. Scenes named i_… count as illumination, v_… as viewpoint. The folder may also be a scene
    itself.

    Raises:
        ValueError: the folder holds no scene. A loader raises it if a file of its pair is missing or broken.
    """
    if not folder.is_dir():
        raise ValueError(f'{folder}: no such folder')
    loaders: list[PairLoader] = []
    for scene in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        for number in range(2, 1000):
            homography = next((p for p in (scene / f'H_1_{number}', scene / f'H1to{number}p') if p.is_file()), None)
            if homography is None:
                break
            loaders.append(partial(_load_scene_pair, scene, number, homography))
    if not loaders:
        raise ValueError(f'{folder}: no scene in it; expected folders with 1.ppm, 2.ppm, … and H_1_2, … (HPatches), '
                         'or img1.ppm, … and H1to2p, …')  # fmt: skip
    return loaders


def _load_scene_pair(scene: Path, number: int, homography: Path) -> Pair:
    try:
        matrix = np.loadtxt(homography)
    except ValueError as error:
        raise ValueError(f'{homography}: not a table of numbers ({error})') from error
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise ValueError(f'{homography}: expected an invertible 3×3 homography, got shape {matrix.shape}')
    split = {'i_': 'illumination', 'v_': 'viewpoint'}.get(scene.name[:2], '')
    images = (image_files.read(_numbered(scene, 1)), image_files.read(_numbered(scene, number)))
    return Pair(f'{scene.name}_{number}', split, *images, matrix)


def _numbered(scene: Path, number: int) -> Path:
    for path in (*sorted(scene.glob(f'{number}.*')), *sorted(scene.glob(f'img{number}.*'))):
        if path.suffix.lower() in image_files.SUFFIXES:
            return path
    raise ValueError(f'{scene}: no image {number}; expected {number}.ppm, img{number}.png or the like')


def random_pairs(folder: Path, seed: int = 0, size: tuple[int, int] = (640, 480)) -> list[PairLoader]:
    """One pair from each photograph of a folder: the photograph fitted to a size, and a random view of it.

    A pair depends only on the seed and the name of the file. Each image gets photometric changes of its own
    (noise.CAMERA). Beyond the photograph the second view sees its mirror image, so that there is no edge where the
    photograph ends; points there have no counterpart.

    The views and the photometric changes are so strong that OpenCV's methods score about as on HPatches in the paper's
    tables 3 and 4. The images have this (width, height), the largest that the protocol asks for.

    Raises:
        OSError: the folder holds no images. A loader raises OSError or ValueError if its file cannot be read.
    """
    return [partial(_make_pair, path, seed, size) for path in image_files.files_in(folder)]


def _make_pair(path: Path, seed: int, size: tuple[int, int]) -> Pair:
    rng = np.random.default_rng([seed, zlib.crc32(os.fsencode(path.name))])  # a name need not be UTF-8
    image, _ = fit(image_files.read(path), size)
    homography = random_homography(rng, size)
    view = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    image0, image1 = (photometric(np.asarray(x, np.uint8), rng, CAMERA) for x in (image, view))
    return Pair(path.name, '', image0, image1, homography)


def random_homography(rng: np.random.Generator, size: tuple[int, int]) -> Transform:
    """A random view of a plane, similar to HPatches' viewpoint scenes, with at least half of the image still visible.

    Each corner moves by up to 12 % of width and height (perspective and shear), then the plane turns by up to 30°, is
    scaled by 0.7 to 1.4, and moves by up to 12 % of width and height.

    Returns:
        (3, 3), from the image to the view, both of this (width, height).
    """
    extent = np.array(size, np.float64)
    corners, center = np.array(UNIT_SQUARE) * (extent - 1), (extent - 1) / 2
    grid = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 20) for n in size)), axis=-1).reshape(-1, 2)
    while True:
        moved = corners + rng.uniform(-0.12, 0.12, (4, 2)) * extent
        angle, scale = rng.uniform(-np.pi / 6, np.pi / 6), np.exp(rng.uniform(np.log(0.7), np.log(1.4)))
        moved = (moved - center) @ (scale * rotation(angle)) + center + rng.uniform(-0.12, 0.12, 2) * extent
        matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
        homography = np.asarray(matrix, np.float64)
        mapped = transform_points(homography, grid)
        if np.mean(np.all((mapped >= 0) & (mapped < extent), axis=1)) >= 0.5:
            return homography
