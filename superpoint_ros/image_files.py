"""Image files, and the same bytes in messages, as gray arrays.

Sizes are read from the header and checked before OpenCV takes memory for the pixels.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')

MAX_SIDE = 16384
"""Longest accepted side of an image, in pixels."""
MAX_AREA = 8192 * 8192
"""Largest accepted area of an image, in pixels."""
MAX_BYTES = 8 * MAX_AREA
"""Largest accepted file: four channels of 16 bits without compression."""
MAX_MARKERS = 10_000
"""Maximum number of markers read before the pixels of a JPEG."""
MAX_CHUNKS = 100_000
"""Maximum number of chunks of a PNG; encoders write some kilobytes into each."""
MAX_SCANS = 64
"""Maximum number of scans of a progressive JPEG; encoders make about ten."""


def files_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted by path; hidden files, such as those that a killed run leaves, do not count.

    Raises:
        FileNotFoundError: the folder does not exist or has no images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    paths = folder.rglob('*') if recursive else folder.iterdir()
    visible = (path for path in paths if not path.name.startswith('.'))
    found = sorted(path for path in visible if path.suffix.lower() in SUFFIXES and not path.is_dir())
    if not found:
        raise FileNotFoundError(f'{folder}: no images; expected files that end in {", ".join(SUFFIXES)}')
    return found


def frames_in(folder: Path) -> list[Path]:
    """The image files of a folder in the order of the numbers in their names; raises what files_in raises."""
    return sorted(files_in(folder), key=lambda path: by_number(path.name))


def by_number(name: str) -> list[str | int]:
    """Sorts 9.png before 10.png: frames and stamps of a simulated clock do not have the same number of digits."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'([0-9]+)', name)]


def read(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as (H, W) uint8 gray; 16 bits are scaled to 8. Raises what read_stored raises."""
    return eight_bits(read_stored(path))


def read_stored(path: Path) -> Gray:
    """Read an image file as (H, W) gray, uint8 or uint16 as stored.

    Raises:
        ValueError: it is not a regular file, cannot be read or is not an image; the message names the file.
    """
    if not path.is_file():
        raise ValueError(f'{path}: {"not a regular file" if path.exists() else "no such file"}')
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f'{size} bytes are too many for an image, expected at most {MAX_BYTES}')
        return decode(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from error


def eight_bits(image: Gray) -> npt.NDArray[np.uint8]:
    """A gray image as uint8; uint16 is scaled from its full range."""
    return np.asarray(image if image.dtype == np.uint8 else cv2.convertScaleAbs(image, alpha=1 / 257), np.uint8)


def decode(data: bytes) -> Gray:
    """Decode the bytes of an image file.

    Returns:
        (H, W) uint8 or uint16 as stored; an EXIF orientation is ignored, as calibrations refer to stored pixels.

    Raises:
        ValueError: the bytes are not an image, cut off or broken, or the image is too large.
    """
    kind = kind_of(data)
    if not kind:
        raise ValueError(f'not an image ({len(data)} bytes), expected BMP, JPEG, PNG, PNM, TIFF or WebP')
    try:
        width, height, whole = _FORMATS[kind][1](data)
    except (struct.error, IndexError):
        raise ValueError(f'the {kind} is cut off after {len(data)} bytes') from None
    check_size(width, height)
    what = f'the {kind} of {width}×{height} pixels'
    if not whole:
        raise ValueError(f'{what} is cut off after {len(data)} bytes')
    if kind == 'JPEG' and (scans := data.count(b'\xff\xda')) > MAX_SCANS:
        raise ValueError(f'{what} has {scans} scans, expected at most {MAX_SCANS}')
    if kind == 'PNG':
        data = _pixels_of_png(data)
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.shape != (height, width):
        raise ValueError(f'{what} is broken ({len(data)} bytes)')
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'{what} has pixels of type {image.dtype}, expected 8 or 16 bits')
    return image


def kind_of(data: bytes) -> str:
    """The format by the first bytes: BMP, JPEG, PNG, PNM, TIFF or WebP; empty if it is none of them."""
    return next((kind for kind, (magic, _) in _FORMATS.items() if re.match(magic, data[:16], re.DOTALL)), '')


def check_size(width: int, height: int) -> None:
    """Check the size of an image before memory is taken for it.

    Raises:
        ValueError: the image is empty or too large.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f'the image is empty ({width}×{height} pixels)')
    if max(width, height) > MAX_SIDE or width * height > MAX_AREA:
        raise ValueError(
            f'{width}×{height} pixels are too many; expected at most {MAX_SIDE} a side and {MAX_AREA // 10**6} million'
        )


Header = tuple[int, int, bool]
"""Width, height, and whether the end of the file is there, as far as it is marked."""


def _bmp_header(data: bytes) -> Header:
    if struct.unpack_from('<I', data, 14)[0] == 12:
        return *struct.unpack_from('<HH', data, 18), True
    width, height = struct.unpack_from('<ii', data, 18)
    return width, abs(height), True


def _jpeg_header(data: bytes) -> Header:
    """Follows libjpeg: the first frame header counts, and some markers have no length."""
    size, at = None, 2
    for _ in range(MAX_MARKERS):
        fill = re.compile(b'\xff+').match(data, at)
        if not fill:
            break
        at = fill.end() - 1
        marker = data[at + 1]
        if marker == 0xDA:  # the pixels begin
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and size is None:
            size = struct.unpack_from('>HH', data, at + 5)
        at += 2 + struct.unpack_from('>H', data, at + 2)[0]
    if size is None:
        raise ValueError(f'the JPEG is broken: it has no frame header in its {len(data)} bytes')
    # An embedded preview has an end marker too, but before the pixels; cameras pad after the end.
    return size[1], size[0], data.rfind(b'\xff\xd9') > at


def _png_header(data: bytes) -> Header:
    return *struct.unpack_from('>II', data, 16), b'IEND' in data


def _pixels_of_png(data: bytes) -> bytes:
    """A PNG without the chunks that do not matter to gray pixels: libpng writes a line to stderr for each bad one."""
    indexed = data[25:26] == b'\x03'
    kept, at = [data[:8]], 8
    for _ in range(MAX_CHUNKS):
        name = data[at + 4 : at + 8]
        if len(name) < 4:
            return b''.join(kept)
        end = at + 12 + int.from_bytes(data[at : at + 4], 'big')
        if not name[0] & 0x20 and (indexed or name != b'PLTE'):  # a lower-case letter marks what a decoder may skip
            kept.append(data[at:end])
        at = end
    raise ValueError(f'the PNG has more than {MAX_CHUNKS} chunks')


def _pnm_header(data: bytes) -> Header:
    header = re.match(rb'P\d(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s', data[:4096])
    if not header:
        raise ValueError('the PNM is broken: it has no width and height')
    return int(header[1]), int(header[2]), True


def _tiff_header(data: bytes) -> Header:
    order = '<' if data.startswith(b'I') else '>'
    (directory,) = struct.unpack_from(f'{order}I', data, 4)
    (count,) = struct.unpack_from(f'{order}H', data, directory)
    tags = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f'{order}HH', data, entry)
        tags[tag] = struct.unpack_from(order + ('H' if kind == 3 else 'I'), data, entry + 8)[0]
    return tags.get(256, 0), tags.get(257, 0), True


def _webp_header(data: bytes) -> Header:
    chunk = data[12:16]
    if chunk == b'VP8X':
        return 1 + int.from_bytes(data[24:27], 'little'), 1 + int.from_bytes(data[27:30], 'little'), True
    if chunk == b'VP8L':
        bits = int.from_bytes(data[21:25], 'little')
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), True
    width, height = struct.unpack_from('<HH', data, 26)
    return width & 0x3FFF, height & 0x3FFF, True


_FORMATS: dict[str, tuple[bytes, Callable[[bytes], Header]]] = {
    'BMP': (b'BM', _bmp_header),
    'JPEG': (b'\xff\xd8', _jpeg_header),
    'PNG': (b'\x89PNG\r\n\x1a\n', _png_header),
    'PNM': (b'P[1-6]\\s', _pnm_header),
    'TIFF': (b'II\\*\0|MM\0\\*', _tiff_header),
    'WebP': (b'RIFF....WEBP', _webp_header),
}
"""First bytes as a regular expression, and reader of the header."""
