"""Messages on the topics of the nodes: values that do not fit, and changed bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header, String

from superpoint_ros.images import _ENCODINGS
from superpoint_ros.ros.messages import image_message
from test.bags.conftest import picture
from test.fuzz.attacks import NUMBERS, Attack, Target, mutated
from test.fuzz.live import PAUSE, Bench, camera_info, detector, good_features, good_info, matcher

MAX_DATA = 2**22
"""Most bytes of pixels or points; the numbers in a message may announce more."""
FLOATS = st.floats(width=32) | st.sampled_from([0.0, 1.0, 400.0, -1.0, float('nan'), float('inf')])
HEADERS = st.builds(
    Header,
    stamp=st.just(Time()) | st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1)),
    frame_id=st.sampled_from(['camera', '', 'x' * 10**5]) | st.text(),
)

SIDES = st.integers(16, 300) | st.sampled_from([0, 1, 2, 15, 16, 97, 640, 4096, 8192, 16384, 2**31, 2**32 - 1])
ENCODINGS = st.sampled_from(sorted(_ENCODINGS)) | st.sampled_from(['32SC1', '', 'x' * 10**6]) | st.text(max_size=20)
FILLS = b'\0', b'\xff', np.array([np.nan, np.inf, 1e38], '<f4').tobytes()
GOOD_IMAGE = serialize_message(image_message(picture(0), Header()))


def repeated(data: bytes, length: int) -> bytes:
    """As many bytes, up to MAX_DATA, that repeat some."""
    length = min(length, MAX_DATA)
    return (data * (length // len(data) + 1))[:length]


@st.composite
def images(draw: st.DrawFn, encodings: st.SearchStrategy[str] = ENCODINGS) -> bytes:
    """Strategy of images whose sizes, steps, encodings and data do not fit."""
    width, height, encoding = draw(SIDES), draw(SIDES), draw(encodings)
    known = _ENCODINGS.get(encoding, _ENCODINGS['mono8'])
    row = min(width * known.channels * np.dtype(known.dtype).itemsize, 2**32 - 1)
    step = draw(st.sampled_from([row, row, row, row + 8]) | SIDES)
    size = int(step * height * known.rows)
    length = draw(st.sampled_from([size, size, max(size - 1, 0)]) | st.integers(0, 10**5))
    message = Image(header=draw(HEADERS), width=width, height=height, step=step, encoding=encoding)
    message.is_bigendian = draw(st.sampled_from([0, 0, 1, 255]))
    message.data = repeated(draw(st.sampled_from(FILLS) | st.binary(min_size=1)), length)
    return serialize_message(message)


def masks() -> st.SearchStrategy[bytes]:
    """Strategy of masks behind the order in which they and images of the same stamp are sent, as in 2mi."""
    broken = mutated([GOOD_IMAGE]) | images(st.just('mono8') | ENCODINGS)
    orders = st.lists(st.sampled_from(b'mi'), min_size=1, max_size=40)
    return st.builds(lambda order, mask: bytes([len(order), *order]) + mask, orders, broken)


def compressed_images() -> st.SearchStrategy[bytes]:
    """Strategy of compressed images with broken files of several formats."""
    gray = picture(0)
    color = np.dstack([gray] * 3)
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    encoded = [
        *[cv2.imencode(suffix, gray)[1] for suffix in ('.jpg', '.png', '.bmp', '.tiff', '.webp', '.pgm')],
        *[cv2.imencode('.jpg', image, progressive)[1] for image in (gray, color)],
        cv2.imencode('.png', gray.astype(np.uint16) * 257)[1],
        cv2.imencode('.png', np.dstack([color, gray]))[1],
    ]
    files = [array.tobytes() for array in encoded]
    formats = st.sampled_from(['jpeg', 'png', '16UC1; png compressed', 'compressedDepth', '']) | st.text(max_size=20)
    broken = st.builds(CompressedImage, header=HEADERS, format=formats, data=mutated(files) | st.binary())
    good = serialize_message(CompressedImage(format='png', data=files[1]))
    return broken.map(serialize_message) | broken.map(serialize_message) | mutated([good])


COUNTS = st.sampled_from([0, 1, 2, 40, 16384, 2**16, 10**6, 2**31, 2**32 - 1]) | st.integers(0, 100)


@st.composite
def odd_layouts(draw: st.DrawFn) -> bytes:
    """Strategy of clouds of any fields."""
    names = st.sampled_from(['x', 'y', 'score', 'descriptor']) | st.text(max_size=5)
    offsets, kinds = st.integers(0, 40) | COUNTS, st.sampled_from([1, 7, 7, 7]) | st.integers(0, 255)
    fields = st.builds(PointField, name=names, offset=offsets, datatype=kinds, count=COUNTS)
    message = PointCloud2(header=draw(HEADERS), height=draw(st.just(1) | COUNTS), width=draw(COUNTS))
    message.fields = draw(st.lists(fields, max_size=6))
    message.point_step, message.row_step = draw(COUNTS), draw(COUNTS)
    message.is_bigendian, message.is_dense = draw(st.booleans()), draw(st.booleans())
    length = draw(st.just(message.point_step * message.width) | COUNTS)
    message.data = repeated(draw(st.binary(min_size=1)), length)
    return serialize_message(message)


@st.composite
def odd_numbers(draw: st.DrawFn) -> bytes:
    """Strategy of clouds in the right layout with any numbers."""
    counts, sizes = st.sampled_from([0, 1, 5, 8, 40]), st.sampled_from([0, 1, 16, 128])
    message = good_features(draw(HEADERS), draw(counts), draw(sizes))
    data = bytearray(message.data)
    for number in draw(st.lists(FLOATS, max_size=10)) if data else ():
        struct.pack_into('<f', data, 4 * draw(st.integers(0, len(data) // 4 - 1)), number)
    message.data = bytes(data)
    return serialize_message(message)


CLOUDS = odd_layouts() | odd_numbers() | mutated([serialize_message(good_features(Header()))])

KEYS = st.sampled_from(['model', 'checksum', 'image_size', 'descriptor_size']) | st.text(max_size=5)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just('\ud800') | st.just(10**400)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=10)
TEXTS = (
    st.dictionaries(KEYS, VALUES).map(json.dumps)
    | VALUES.map(json.dumps)
    | st.text()
    | st.sampled_from(['[' * 5000, '{"a":' * 10**5, 'x' * 10**6, '9' * 5000, '', '\0', 'null'])
)
INFOS = TEXTS.map(lambda text: serialize_message(String(data=text))) | mutated([serialize_message(good_info())])


@st.composite
def camera_infos(draw: st.DrawFn) -> bytes:
    """Strategy of calibrations with any numbers and any number of coefficients."""
    message = camera_info()
    sizes = st.sampled_from([number for number in NUMBERS if number < 2**32])
    models = st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant', '', 'fisheye']) | st.text(max_size=9)
    message.header, message.distortion_model = draw(HEADERS), draw(models)
    message.width, message.height = draw(sizes), draw(sizes)
    numbers = FLOATS | st.floats()
    message.d = draw(st.lists(numbers, max_size=16))
    if draw(st.booleans()):
        message.k = draw(st.lists(numbers, min_size=9, max_size=9))
    return serialize_message(message)


def publish(*topics: str) -> Callable[[Bench, bytes], None]:
    """A function that publishes an attack on topics; if one describes features, good features follow.

    A stamp of zero becomes the next one: clouds are matched only if their stamps grow.
    """

    def send(bench: Bench, data: bytes) -> None:
        if data[4:12] == bytes(8):
            data = data[:4] + struct.pack('<iI', *divmod(next(bench.stamps), 10**9)) + data[12:]
        for topic in topics:
            bench.publish(topic, data)
        if topics[0].endswith('info'):
            bench.spin_until(lambda: False, PAUSE)
            bench.send_good(only='/features')

    return send


def publish_masks(bench: Bench, data: bytes) -> None:
    """Publish masks, and images with the stamp of the mask, which is in bytes 4 to 12."""
    order, mask = data[1 : 1 + data[0]], data[1 + data[0] :]
    image = GOOD_IMAGE[:4] + mask[4:12].ljust(8, b'\0') + GOOD_IMAGE[12:]
    for letter in order:
        bench.publish(*(('mask', mask) if letter == ord('m') else ('image', image)))


def publish_cloud_or_info(bench: Bench, data: bytes) -> None:
    """Publish a cloud of features of both cameras, or features/info of one, as the first letter says."""
    topics = {b'c': ('left/features', 'right/features'), b'i': ('left/features/info',)}
    publish(*topics[data[:1]])(bench, data[1:])


def on(
    node: Callable[..., AbstractContextManager[Bench]], send: Callable[[Bench, bytes], None], **parameters: object
) -> Callable[[Path], AbstractContextManager[Attack]]:
    """Gives a function that starts a node with parameters, which gets attacks by `send`."""

    @contextmanager
    def start(folder: Path) -> Iterator[Attack]:
        with node(folder, **parameters) as bench:
            yield partial(bench.attack, send)

    return start


TARGETS = {
    'images': Target(images() | mutated([GOOD_IMAGE]), on(detector, publish('image'))),
    'compressed_images': Target(
        compressed_images(), on(detector, publish('image/compressed'), image_transport='compressed')
    ),
    'masks': Target(masks(), on(detector, publish_masks, mask_topic='required', mask_timeout=1.0)),
    'clouds': Target(CLOUDS, on(matcher, publish('left/features', 'right/features'))),
    'features_info': Target(INFOS, on(matcher, publish('left/features/info'))),
    'camera_infos': Target(
        camera_infos() | mutated([serialize_message(camera_info())]), on(matcher, publish('left/camera_info'))
    ),
    'learned_matcher': Target(
        CLOUDS.map(b'c'.__add__) | INFOS.map(b'i'.__add__),
        on(matcher, publish_cloud_or_info, matcher='learned'),
    ),
}
