import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros import image_files

BMP_16 = b'BM' + struct.pack('<IHHIIHHHH', 0, 0, 0, 26, 12, 40, 30, 1, 24) + bytes(120 * 30)


def gradient(width=40, height=30, dtype=np.uint8):
    y, x = np.indices((height, width))
    return ((x * 3 + y * 2) % 256).astype(dtype) * (257 if dtype == np.uint16 else 1)


def jpeg(*flags):
    return cv2.imencode('.jpg', gradient(), flags)[1].tobytes()


@given(st.sampled_from(image_files.SUFFIXES), st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_the_size_in_the_header_is_that_of_the_pixels(suffix, width, height, color):
    image = gradient(width, height)
    colored = suffix == '.ppm' or (color and suffix not in ('.pbm', '.pgm'))
    data = cv2.imencode(suffix, cv2.merge([image] * 3) if colored else image)[1].tobytes()
    decoded = image_files.decode(data)
    assert decoded.shape == (height, width)
    assert decoded.dtype == np.uint8
    if suffix in ('.bmp', '.pgm', '.png', '.ppm', '.tif', '.tiff'):
        np.testing.assert_array_equal(decoded, image)


def test_other_headers():
    assert image_files.decode(BMP_16).shape == (30, 40)
    assert image_files.decode(b'P5 # wide\n# high\n3 #\n2\n255\n' + bytes(6)).shape == (2, 3)
    lossless = cv2.imencode('.webp', gradient(), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert lossless[12:16] == b'VP8L'
    np.testing.assert_array_equal(image_files.decode(lossless), gradient())
    extended = lossless[:12] + b'VP8X' + struct.pack('<II', 10, 0) + b'\x27\0\0\x1d\0\0' + lossless[12:]
    extended = extended[:4] + struct.pack('<I', len(extended) - 8) + extended[8:]
    np.testing.assert_array_equal(image_files.decode(extended), gradient())
    big = cv2.imencode('.tif', gradient())[1].tobytes()
    assert big.startswith(b'II')


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.pgm'])
def test_sixteen_bits_are_scaled_to_eight(suffix, tmp_path):
    path = tmp_path / f'deep{suffix}'
    cv2.imwrite(str(path), gradient(dtype=np.uint16))
    np.testing.assert_array_equal(image_files.read(path), gradient())


def oversized():
    """Files of a few bytes whose header announces 60000×60000 pixels, by their suffix."""
    small = {suffix: bytearray(cv2.imencode(suffix, gradient())[1].tobytes()) for suffix in ('.png', '.jpg', '.bmp')}
    small['.png'][16:24] = struct.pack('>II', 60000, 60000)
    frame = small['.jpg'].index(b'\xff\xc0')
    small['.jpg'][frame + 5 : frame + 9] = struct.pack('>HH', 60000, 60000)
    small['.bmp'][18:26] = struct.pack('<ii', 60000, -60000)
    small['.pgm'] = b'P5\n60000 60000\n255\n' + bytes(100)
    entry = struct.pack('<HHI', 256, 4, 1), struct.pack('<HHI', 257, 4, 1)
    small['.tif'] = b'II*\0\x08\0\0\0\x02\0' + b''.join(e + struct.pack('<I', 60000) for e in entry) + bytes(100)
    small['.webp'] = b'RIFF' + struct.pack('<I', 100) + b'WEBPVP8X' + struct.pack('<II', 10, 0) + b'\x5f\xea\0' * 2
    return {suffix: bytes(data) for suffix, data in small.items()}


@pytest.mark.parametrize('suffix', oversized())
def test_an_image_of_gigabytes_is_refused_by_its_header(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    path = tmp_path / f'big{suffix}'
    path.write_bytes(oversized()[suffix])
    with pytest.raises(ValueError, match=rf'big\{suffix}: 60000×60000 pixels are too many'):
        image_files.read(path)


@pytest.mark.parametrize('hidden', [b'\xff\xd0', b'\xff\x01', b'\xff\xff\xd7'])
def test_markers_without_a_length_do_not_hide_the_size_of_a_jpeg(hidden):
    """libjpeg skips these two bytes; a reader that takes a length from what follows finds another frame header."""
    whole = jpeg()
    frame = whole.index(b'\xff\xc0')
    large = whole[frame : frame + 5] + struct.pack('>HH', 9000, 9000) + whole[frame + 9 : whole.index(b'\xff\xc4')]
    # To a wrong reader the length is 0xFFC0: it looks for the next marker 65,472 bytes on.
    padding = b'\xff\xfe' + struct.pack('>H', 65400) + bytes(65398)
    data = whole[:2] + hidden + large + padding + bytes(80) + whole[frame:]
    with pytest.raises(ValueError, match='9000×9000 pixels are too many'):
        image_files.decode(data)


def test_a_jpeg_with_thousands_of_scans_is_refused():
    progressive = jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert image_files.decode(progressive).shape == (30, 40)
    scan = progressive[progressive.rindex(b'\xff\xda') : -2]
    with pytest.raises(ValueError, match=r'40×30 pixels has 50\d\d scans, expected at most 64'):
        image_files.decode(progressive[:-2] + scan * 5000 + progressive[-2:])


def png_chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def indexed_png(*extras):
    """A PNG of 40×30 pixels with a palette, and further chunks before the pixels."""
    rows = np.hstack([np.zeros((30, 1), np.uint8), gradient()]).tobytes()
    head = png_chunk(b'IHDR', struct.pack('>IIBBBBB', 40, 30, 8, 3, 0, 0, 0))
    palette = png_chunk(b'PLTE', np.random.default_rng(0).bytes(768))
    end = png_chunk(b'IDAT', zlib.compress(rows)) + png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + head + palette + b''.join(extras) + end


def test_bad_chunks_beside_the_pixels_of_a_png_are_silent(capfd):
    gray = cv2.imencode('.png', gradient())[1].tobytes()
    bad = [png_chunk(name, b'x') for name in (b'gAMA', b'tEXt', b'iCCP', b'sBIT', b'PLTE')] * 1000
    np.testing.assert_array_equal(image_files.decode(gray[:33] + b''.join(bad) + gray[33:]), gradient())
    image_files.decode(indexed_png(*[chunk for chunk in bad if b'PLTE' not in chunk]))
    assert capfd.readouterr() == ('', '')
    with pytest.raises(ValueError, match='more than 100000 chunks'):
        image_files.decode(gray[:33] + png_chunk(b'tEXt', b'') * 100_000 + gray[33:])


def test_transparency_and_gamma_do_not_change_the_gray_pixels_of_a_png():
    extras = png_chunk(b'gAMA', struct.pack('>I', 10**5)), png_chunk(b'tRNS', bytes(range(0, 200, 10)))
    direct = cv2.imdecode(np.frombuffer(indexed_png(*extras), np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(image_files.decode(indexed_png(*extras)), direct)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.bmp', '.pgm', '.webp'])
@pytest.mark.parametrize('kept', [0, 3, 11, 30, 0.5, 0.9])
def test_a_cut_off_file_is_an_error(suffix, kept, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    data = cv2.imencode(suffix, image)[1].tobytes()
    path = tmp_path / f'cut{suffix}'
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(ValueError, match=rf'cut\{suffix}: .*(cut off|broken|not an image|empty)'):
        image_files.read(path)


@given(st.sampled_from(list(oversized().values())), st.integers(2, 40), st.binary(max_size=60))
def test_any_bytes_give_an_image_or_a_value_error(header, kept, tail):
    try:
        image = image_files.decode(header[:kept] + tail)
    except ValueError:
        return
    assert image.ndim == 2


def test_what_is_not_a_regular_file_is_named(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'link.png').symlink_to('nowhere.png')
    for name, reason in (('pipe', 'not a regular file'), ('folder', 'not a regular file'), ('link', 'no such file')):
        with pytest.raises(ValueError, match=rf'{name}\.png: {reason}'):
            image_files.read(tmp_path / f'{name}.png')
    with (tmp_path / 'huge.pgm').open('wb') as file:
        file.truncate(image_files.MAX_BYTES + 1)
    with pytest.raises(ValueError, match=r'huge\.pgm: .* bytes are too many'):
        image_files.read(tmp_path / 'huge.pgm')
    cv2.imwrite(str(tmp_path / 'float.tif'), gradient().astype(np.float32))
    with pytest.raises(ValueError, match=r'float\.tif: .* float32, expected 8 or 16 bits'):
        image_files.read(tmp_path / 'float.tif')


def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b'\xff.png')
    path.write_bytes(cv2.imencode('.png', gradient())[1].tobytes())
    (found,) = image_files.files_in(tmp_path)
    np.testing.assert_array_equal(image_files.read(found), gradient())


def test_a_listing_has_images_in_order_and_dangling_links_but_no_folders(tmp_path):
    for name in ('b.png', 'a.JPG', 'c.txt', 'deep/d.tif'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'link.bmp').symlink_to('nowhere')
    assert [path.name for path in image_files.files_in(tmp_path)] == ['a.JPG', 'b.png', 'link.bmp']
    assert [path.name for path in image_files.files_in(tmp_path, recursive=True)] == [
        'a.JPG', 'b.png', 'd.tif', 'link.bmp',
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r'deep/none: no such folder'):
        image_files.files_in(tmp_path / 'deep' / 'none')
    with pytest.raises(FileNotFoundError, match=r'folder\.png: no images; expected files that end in \.bmp'):
        image_files.files_in(tmp_path / 'folder.png')


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for name in ('left10.png', 'left9.png', 'a2.png'):
        (tmp_path / name).touch()
    assert [path.name for path in image_files.frames_in(tmp_path)] == ['a2.png', 'left9.png', 'left10.png']
