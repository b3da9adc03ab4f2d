import contextlib
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros import images

RED, GREEN, BLUE = 200, 100, 50
GRAY = round(0.299 * RED + 0.587 * GREEN + 0.114 * BLUE)  # 124: ITU-R BT.601, as OpenCV and cv_bridge


def message(pixels, encoding_, padding=0, big=False, **changed):
    """An image message; each row is followed by padding."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))).view(np.uint8)
    rows = rows.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    fields = {'height': height, 'width': width, 'encoding': encoding_, 'is_bigendian': int(big), 'step': rows.shape[1]}
    return SimpleNamespace(**{**fields, 'data': rows.tobytes(), **changed})


def flat(*channels, dtype=np.uint8):
    return np.broadcast_to(np.array(channels, dtype), (6, 8, len(channels)))


def mosaic(first, second, dtype=np.uint8):
    """A flat color behind a Bayer filter with these two rows."""
    values = {'r': RED, 'g': GREEN, 'b': BLUE}
    return np.tile(np.array([[values[c] for c in first], [values[c] for c in second]], dtype), (8, 8))


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('mono8', flat(GRAY)[..., 0]),
        ('8UC1', flat(GRAY)[..., 0]),
        ('rgb8', flat(RED, GREEN, BLUE)),
        ('bgr8', flat(BLUE, GREEN, RED)),
        ('8UC3', flat(BLUE, GREEN, RED)),
        ('rgba8', flat(RED, GREEN, BLUE, 7)),
        ('bgra8', flat(BLUE, GREEN, RED, 7)),
        ('bayer_rggb8', mosaic('rg', 'gb')),
        ('bayer_bggr8', mosaic('bg', 'gr')),
        ('bayer_gbrg8', mosaic('gb', 'rg')),
        ('bayer_grbg8', mosaic('gr', 'bg')),
        ('yuv422', flat(7, GRAY)),
        ('uyvy', flat(7, GRAY)),
        ('yuv422_yuy2', flat(GRAY, 7)),
        ('yuyv', flat(GRAY, 7)),
    ],
)
def test_a_flat_color_has_its_gray_in_every_encoding(encoding, pixels, padding):
    gray = images.to_gray(message(pixels, encoding, padding))
    assert gray.dtype == np.uint8
    assert gray.shape == pixels.shape[:2]
    np.testing.assert_allclose(gray, GRAY, atol=1)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('mono16', flat(257 * GRAY, dtype=np.uint16)[..., 0]),
        ('rgb16', flat(257 * RED, 257 * GREEN, 257 * BLUE, dtype=np.uint16)),
        ('bayer_rggb16', 257 * mosaic('rg', 'gb', np.uint16)),
        ('bayer_grbg16', 257 * mosaic('gr', 'bg', np.uint16)),
    ],
)
def test_sixteen_bits_keep_their_range_in_either_byte_order(encoding, pixels, big):
    gray = images.to_gray(message(pixels, encoding, padding=2, big=big))
    assert gray.dtype == np.uint16
    np.testing.assert_allclose(gray, 257 * GRAY, atol=257)


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
def test_the_first_plane_is_gray(encoding):
    luma = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)
    color_rows = {'nv12': 3, 'nv21': 3, 'nv24': 12}[encoding]
    planes = np.vstack([luma, np.full((color_rows, 8), 200, np.uint8)])
    np.testing.assert_array_equal(images.to_gray(message(planes, encoding, padding=4, height=6)), luma)
    with pytest.raises(ValueError, match='rows of 8 bytes'):
        images.to_gray(message(luma, encoding))


def test_mono8_is_not_copied():
    data = bytearray(range(48))
    gray = images.to_gray(message(np.zeros((6, 8), np.uint8), 'mono8', data=data))
    data[0] = 77
    assert gray[0, 0] == 77


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_mono8_of_any_size_and_step_is_unchanged(height, width, padding, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    np.testing.assert_array_equal(images.to_gray(message(pixels, 'mono8', padding)), pixels)


@pytest.mark.parametrize(('encoding', 'dtype'), [('32FC1', np.float32), ('64FC1', np.float64), ('16UC1', np.uint16)])
def test_values_without_agreed_range_are_stretched(encoding, dtype):
    pixels = np.linspace(1000, 3000, 10000).reshape(100, 100).astype(dtype)
    gray = images.to_gray(message(pixels, encoding))
    assert gray.dtype == np.uint8
    assert (gray.min(), gray.max()) == (0, 255)
    assert np.all(np.diff(gray.ravel().astype(int)) >= 0)
    middle = gray[50, 0]
    assert abs(int(middle) - 128) <= 2


def test_values_that_are_not_finite_become_zero():
    pixels = np.linspace(0, 1, 10000, dtype=np.float32).reshape(100, 100)
    spoilt = pixels.copy()
    spoilt[::7, ::3], spoilt[1::7, ::3], spoilt[2::7, ::3] = np.nan, np.inf, -np.inf
    gray, whole = images.to_gray(message(spoilt, '32FC1')), images.to_gray(message(pixels, '32FC1'))
    good = np.isfinite(spoilt)
    assert not gray[~good].any()
    assert np.abs(gray[good].astype(int) - whole[good]).max() <= 2


def test_outliers_do_not_flatten_the_image():
    pixels = np.linspace(0, 1, 10000, dtype=np.float32).reshape(100, 100)
    pixels[5, 5] = 1e30
    assert images.to_gray(message(pixels, '32FC1')).std() > 60


def test_an_image_of_one_value_is_black_not_an_error():
    assert not images.to_gray(message(np.full((20, 20), 5, np.float32), '32FC1')).any()


@pytest.mark.parametrize(
    ('changed', 'expected'),
    [
        ({'height': 0}, 'empty'),
        ({'width': 0}, 'empty'),
        ({'step': 7}, 'step is 7 bytes, but a row of 8 pixels mono8 has 8'),
        ({'step': 0}, 'step is 0 bytes'),
        ({'data': bytes(47)}, 'data has 47 bytes, but 6 rows of 8 bytes are 48'),
        ({'data': b''}, 'data has 0 bytes'),
        ({'height': 2**31, 'width': 2**31, 'step': 2**31}, 'too many'),
        ({'height': 12000, 'width': 12000, 'step': 12000}, 'too many'),
        ({'encoding': 'jpeg2000'}, "encoding 'jpeg2000' is unknown; expected one of 16UC1"),
        ({'encoding': ''}, 'is unknown'),
    ],
)
def test_the_error_of_a_bad_message_names_the_problem(changed, expected):
    with pytest.raises(ValueError, match=expected):
        images.to_gray(message(np.zeros((6, 8), np.uint8), 'mono8', **changed))


def test_stretching_takes_little_memory():
    image = message(np.arange(2**22, dtype=np.uint16).reshape(2048, 2048), '16UC1')
    tracemalloc.start()
    images.to_gray(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**22


def test_an_image_without_finite_values_is_an_error():
    with pytest.raises(ValueError, match='no pixel is a finite number'):
        images.to_gray(message(np.full((20, 20), np.nan, np.float32), '32FC1'))


def picture():
    y, x = np.indices((60, 80))
    return (128 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)


def compressed(extension, image, form=None, *flags):
    data = cv2.imencode(extension, image, flags)[1].tobytes()
    return SimpleNamespace(format=form or extension[1:], data=data)


def test_jpeg_and_png_decode():
    np.testing.assert_array_equal(images.decompress(compressed('.png', picture())), picture())
    assert (
        np.abs(
            images.decompress(compressed('.jpg', picture(), 'rgb8; jpeg compressed bgr8')).astype(int) - picture()
        ).mean()
        < 3
    )
    color = np.broadcast_to(np.uint8([BLUE, GREEN, RED]), (60, 80, 3))
    for extension in ('.jpg', '.png'):
        np.testing.assert_allclose(images.decompress(compressed(extension, color)), GRAY, atol=2)


def test_a_png_of_sixteen_bits_stays_so_or_is_stretched():
    deep = picture().astype(np.uint16) * 20
    np.testing.assert_array_equal(images.decompress(compressed('.png', deep, 'mono16; png compressed ')), deep)
    stretched = images.decompress(compressed('.png', deep, '16UC1; png compressed '))
    assert stretched.dtype == np.uint8
    assert stretched.max() == 255


def test_an_exif_orientation_is_ignored():
    plain = compressed('.jpg', picture()).data
    # EXIF with one entry: orientation (0x0112), SHORT, 1 value, 6 = turned by 90°.
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    data = plain[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + plain[2:]
    assert images.decompress(SimpleNamespace(format='jpeg', data=data)).shape == (60, 80)


def test_padding_after_the_end_is_ignored():
    whole = compressed('.jpg', picture())
    whole.data += bytes(100)
    assert images.decompress(whole).shape == (60, 80)


def test_broken_pixels_in_a_whole_frame_are_an_error():
    data = bytearray(compressed('.png', picture()).data)
    data[60:200] = bytes(140)
    with pytest.raises(ValueError, match='the PNG of 80×60 pixels is broken'):
        images.decompress(SimpleNamespace(format='png', data=data))


def test_compressed_depth_is_refused():
    with pytest.raises(ValueError, match='compressed depth'):
        images.decompress(SimpleNamespace(format='16UC1; compressedDepth png', data=b'\0' * 12))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_picture_or_a_value_error(tail):
    for head in (b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n'):
        with contextlib.suppress(ValueError):
            images.decompress(SimpleNamespace(format='', data=head + tail))
