"""Converts image messages to gray arrays, the input of the networks.

Works on anything with the attributes of sensor_msgs/Image and sensor_msgs/CompressedImage (rclpy's messages, rosbags'
messages), and needs no ROS. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros import image_files
from superpoint_ros.image_files import Gray as Gray

BLOCK = 2**18
"""Number of pixels that are stretched at once."""


class _Encoding(NamedTuple):
    """How pixels lie in memory, and how (H, W) or (H, W, channels) become (H, W) uint8 or uint16."""

    dtype: str
    channels: int
    to_gray: Callable[[Any], Gray]
    rows: float = 1
    """Rows in `data` for each image row: more if color planes follow the gray one."""


def gray(message: Any) -> Gray:
    """The gray image of a sensor_msgs/Image (see to_gray) or sensor_msgs/CompressedImage (see decompress)."""
    return to_gray(message) if hasattr(message, 'encoding') else decompress(message)


def to_gray(message: Any) -> Gray:
    """The gray image of a sensor_msgs/Image.

    mono8 (and nv12 or nv21, whose first plane is gray) share the message's memory. mono16, rgb16 and 16-bit Bayer
    patterns come out as uint16 of full range. 16UC1 and 32FC1 have no agreed range (depth, temperature, range): their
    1st to 99th percentiles are stretched to 0 … 255, and what is not finite becomes 0. Encodings not known here are
    left to cv_bridge where that is installed.

    Returns:
        (H, W) uint8 or uint16, maybe read-only.

    Raises:
        ValueError: one sentence on what is wrong with the message.
    """
    height, width, step = message.height, message.width, message.step
    image_files.check_size(width, height)
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        return _by_cv_bridge(message)
    dtype = np.dtype(encoding.dtype)
    row = width * encoding.channels * dtype.itemsize
    if step < row:
        raise ValueError(f'step is {step} bytes, but a row of {width} pixels {message.encoding} has {row}')
    data = np.frombuffer(message.data, np.uint8)
    rows = int(np.ceil(height * encoding.rows))
    if len(data) < rows * step:
        raise ValueError(f'data has {len(data)} bytes, but {rows} rows of {step} bytes are {rows * step}')
    if message.is_bigendian:
        dtype = dtype.newbyteorder('>')
    shape = (height, width) if encoding.channels == 1 else (height, width, encoding.channels)
    strides = (step, encoding.channels * dtype.itemsize, dtype.itemsize)[: len(shape)]
    pixels: npt.NDArray[Any] = np.ndarray(shape, dtype, data, strides=strides)
    if not dtype.isnative:
        pixels = pixels.astype(dtype.newbyteorder('='))
    return encoding.to_gray(pixels)


def decompress(message: Any) -> Gray:
    """The gray image of a sensor_msgs/CompressedImage that holds a JPEG or a PNG.

    A 16-bit PNG comes out as uint16, or stretched as in to_gray where `format` says that it was 16UC1.

    Returns:
        (H, W) uint8 or uint16, as stored; an EXIF orientation is ignored, as calibrations refer to stored pixels.

    Raises:
        ValueError: one sentence on what is wrong with the message.
    """
    if 'compresseddepth' in message.format.lower():
        raise ValueError(f'format {message.format!r} is compressed depth, not a picture; send a JPEG or a PNG')
    data = bytes(message.data)
    if image_files.kind_of(data) not in ('JPEG', 'PNG'):
        raise ValueError(f'neither a JPEG nor a PNG ({len(data)} bytes, format {message.format!r})')
    image = image_files.decode(data)
    return stretch(image) if message.format.lower().startswith('16uc1') else image


def stretch(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Stretch the 1st to 99th percentile of the finite values of an image (H, W) to 0 … 255; the others become 0.

    Raises:
        ValueError: no value is finite.
    """
    # The percentiles of some ten thousand pixels are as good as those of all, and take a tenth of the time.
    sample = image[:: max(1, image.shape[0] // 128), :: max(1, image.shape[1] // 128)]
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        finite = image[np.isfinite(image)]
    if not len(finite):
        raise ValueError('no pixel is a finite number')
    low, high = np.percentile(finite.astype(np.float64), (1, 99))
    stretched = np.zeros(image.shape, np.uint8)
    if not high > low:
        return stretched
    # In blocks of rows: a whole image in float32 would take several times the memory of the message.
    block = max(1, BLOCK // image.shape[1])
    for top in range(0, len(image), block):
        with np.errstate(over='ignore', invalid='ignore'):
            scaled = (image[top : top + block].astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        scaled[~np.isfinite(scaled)] = 0
        stretched[top : top + block] = np.clip(scaled, 0, 255)
    return stretched


def _by_cv_bridge(message: Any) -> Gray:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except (ImportError, AttributeError):  # AttributeError: built for NumPy 1, loaded with NumPy 2
        known = ', '.join(sorted(_ENCODINGS))
        raise ValueError(f'encoding {message.encoding!r} is unknown; expected one of {known}') from None
    try:
        return CvBridge().imgmsg_to_cv2(message, 'mono8')
    except CvBridgeError as error:
        raise ValueError(f'encoding {message.encoding!r}: {error}') from None


def _by(code: int) -> Callable[[Any], Any]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _as_is(pixels: Any) -> Any:
    return pixels


def _channel(index: int) -> Callable[[Any], Any]:
    return lambda pixels: cv2.extractChannel(pixels, index)


_COLORS = {
    'rgb': (3, cv2.COLOR_RGB2GRAY),
    'bgr': (3, cv2.COLOR_BGR2GRAY),
    'rgba': (4, cv2.COLOR_RGBA2GRAY),
    'bgra': (4, cv2.COLOR_BGRA2GRAY),
}
# OpenCV names a pattern by its second row, ROS by its first: RGGB is OpenCV's BG.
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2GRAY,
    'bggr': cv2.COLOR_BayerRG2GRAY,
    'gbrg': cv2.COLOR_BayerGR2GRAY,
    'grbg': cv2.COLOR_BayerGB2GRAY,
}
_ENCODINGS: dict[str, _Encoding] = {
    'mono8': _Encoding('u1', 1, _as_is),
    'mono16': _Encoding('<u2', 1, _as_is),
    '8UC1': _Encoding('u1', 1, _as_is),
    '8UC3': _Encoding('u1', 3, _by(cv2.COLOR_BGR2GRAY)),
    '8UC4': _Encoding('u1', 4, _by(cv2.COLOR_BGRA2GRAY)),
    '16UC1': _Encoding('<u2', 1, stretch),
    '32FC1': _Encoding('<f4', 1, stretch),
    '64FC1': _Encoding('<f8', 1, stretch),
    **{
        f'{name}{bits}': _Encoding(f'<u{bits // 8}', channels, _by(code))
        for (name, (channels, code)), bits in itertools.product(_COLORS.items(), (8, 16))
    },
    **{
        f'bayer_{name}{bits}': _Encoding(f'<u{bits // 8}', 1, _by(code))
        for (name, code), bits in itertools.product(_BAYER.items(), (8, 16))
    },
    'uyvy': _Encoding('u1', 2, _channel(1)),
    'yuv422': _Encoding('u1', 2, _channel(1)),  # the older name
    'yuyv': _Encoding('u1', 2, _channel(0)),
    'yuv422_yuy2': _Encoding('u1', 2, _channel(0)),  # the older name
    'nv12': _Encoding('u1', 1, _as_is, rows=1.5),
    'nv21': _Encoding('u1', 1, _as_is, rows=1.5),
    'nv24': _Encoding('u1', 1, _as_is, rows=3),
}
