"""Image files as gray arrays: the only list of suffixes, the only lister and the only reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


def files_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted by path.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    paths = folder.rglob('*') if recursive else folder.iterdir()
    found = sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.is_dir())
    if not found:
        raise FileNotFoundError(f'{folder}: no images; expected files that end in {", ".join(SUFFIXES)}')
    return found


def read(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as (H, W) uint8 gray; 16 bits are scaled to 8, an EXIF orientation is ignored.

    Raises:
        ValueError: not a regular file, or not an image; the message names the file.
    """
    if not path.is_file():
        raise ValueError(f'{path}: {"not a regular file" if path.exists() else "no such file"}')
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    if image is None:
        raise ValueError(f'{path}: not an image that OpenCV can read')
    return eight_bits(image)


def eight_bits(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A uint8 or uint16 gray image as uint8; uint16 is scaled from its full range."""
    return np.asarray(image if image.dtype == np.uint8 else cv2.convertScaleAbs(image, alpha=1 / 257), np.uint8)
