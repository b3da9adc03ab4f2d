"""Extraction from all kinds of images, with a graph whose scores are the brightness of the image."""

import dataclasses
import gc
import weakref

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from superpoint_ros.extractor import Extractor, ExtractorConfig, prepare, to_gray
from superpoint_ros.models import SHIPPED

GAIN, DUSTBIN = 8, 12


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    """Logits are brightness times GAIN, against a dustbin so high that cells hardly differ; descriptors are means."""
    weights = np.zeros((65, 1, 8, 8), np.float32)
    weights[np.arange(64), 0, np.arange(64) // 8, np.arange(64) % 8] = GAIN
    bias = np.zeros(65, np.float32)
    bias[64] = DUSTBIN
    mean = np.full((3, 1, 8, 8), 1 / 64, np.float32)
    nodes = [
        helper.make_node('Conv', ['image', 'weights', 'bias'], ['logits'], strides=[8, 8]),
        helper.make_node('Conv', ['image', 'mean'], ['descriptors'], strides=[8, 8]),
    ]
    constants = {'weights': weights, 'bias': bias, 'mean': mean}
    sizes = {'logits': 65, 'descriptors': 3}
    body = helper.make_graph(
        nodes,
        'brightness',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['b', 1, 'h', 'w'])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ['b', c, 'rows', 'columns']) for n, c in sizes.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path_factory.mktemp('graph') / 'brightness.onnx'
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)
    return str(path)


@pytest.fixture(scope='module')
def extractor(graph):
    return Extractor(graph, backend='openvino', precision='fp32', resize=0, border=0, threshold=0.001)


def spots(width, height, centers, sigma):
    """A dark image with round spots."""
    y, x = np.indices((height, width), np.float32)
    image = np.zeros((height, width), np.float32)
    for u, v in centers:
        image = np.maximum(image, np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)))
    return (image * 255).round().astype(np.uint8)


def nearest_errors(features, centers):
    distance = features.keypoints[:, None] - np.array(centers)
    best = np.linalg.norm(distance, axis=2).argmin(axis=0)
    return distance[best, np.arange(len(centers))]


@pytest.mark.parametrize(('width', 'height'), [(640, 480), (801, 605), (333, 517)])
@pytest.mark.parametrize('resize', [0, 640, 400, 320, 211])
def test_keypoints_are_in_pixels_of_the_original_image_at_any_network_size(graph, width, height, resize):
    """An error of half a pixel, in pixels of the network or the image, would show in the mean."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(30, width - 30, 50), np.arange(30, height - 30, 50)), -1).reshape(-1, 2)
    centers = grid + rng.uniform(-8, 8, grid.shape)
    shrink = max(1, max(width, height) / resize) if resize else 1
    image = spots(width, height, centers, sigma=1.5 * shrink)
    features = Extractor(graph, backend='openvino', precision='fp32', resize=resize, border=0, threshold=0.001)(image)
    errors = nearest_errors(features, centers)
    assert np.abs(errors.mean(axis=0)).max() < 0.01 * shrink
    assert np.abs(errors).max() < 0.1 * shrink
    assert features.image_size == (width, height)


def test_a_single_bright_pixel_is_found_where_it_is(extractor):
    for x, y in ((20, 20), (23, 24), (0, 0), (40, 32), (39, 15)):
        image = np.zeros((33, 41), np.uint8)
        image[y, x] = 255
        (keypoint,) = extractor(image).keypoints
        np.testing.assert_allclose(keypoint, [x, y], atol=0.01)


@given(st.integers(16, 60), st.integers(16, 60), st.integers(0, 100))
@settings(max_examples=40)
def test_no_keypoints_in_the_padding(extractor, width, height, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    image[-3:], image[:, -3:] = 255, 255  # what the padding repeats
    keypoints = extractor(image).keypoints
    assert len(keypoints)
    assert (keypoints >= 0).all()
    assert (keypoints <= [width - 1, height - 1]).all()


def test_the_border_is_that_of_the_picture(graph):
    extract = Extractor(
        graph, backend='openvino', precision='fp32', border=7, nms_radius=1, subpixel=False, resize=0, threshold=0
    )
    image = np.random.default_rng(0).integers(0, 256, (45, 61), np.uint8)
    x, y = extract(image).keypoints.T
    assert (x.min(), x.max(), y.min(), y.max()) == (7, 61 - 8, 7, 45 - 8)


PICTURE = spots(90, 70, [(20.3, 30.6), (60.2, 40.4), (45, 12)], 2)


@pytest.mark.parametrize(
    'image',
    [
        PICTURE[..., None],
        np.repeat(PICTURE[..., None], 3, 2),
        np.concatenate([np.repeat(PICTURE[..., None], 3, 2), np.full((70, 90, 1), 7, np.uint8)], 2),
        PICTURE.astype(np.uint16) * 257,
        np.repeat(PICTURE[..., None], 3, 2).astype(np.uint16) * 257,
        PICTURE.astype(np.float32) / 255,
        PICTURE.astype(np.float64) / 255,
        PICTURE.astype(np.float16) / 255,
        np.repeat(PICTURE[..., None], 4, 2).astype(np.float64) / 255,
        PICTURE.astype(np.float32) / 255 * 1.015 - 0.006,  # overshoot as of interpolation
        np.asfortranarray(PICTURE),
        np.repeat(np.repeat(PICTURE, 2, 0), 2, 1)[::2, ::2],
        PICTURE[::-1][::-1],
        PICTURE[:, ::-1].copy()[:, ::-1],
    ],
    ids=lambda image: f'{image.dtype}{image.shape[2:]}{image.strides}',
)
def test_all_kinds_of_images_give_the_same_keypoints(extractor, image):
    expected, found = extractor(PICTURE), extractor(image)
    assert len(expected) == 3
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.05)


def test_colors_have_the_usual_weights():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 2] = 100  # red, as OpenCV orders channels
    assert to_gray(image)[0, 0] == 30
    assert to_gray((image * 257.0).astype(np.uint16))[0, 0] == 30
    assert to_gray(image / np.float32(255))[0, 0] == 30


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (None, 'expected a NumPy array, got None'),
        ('image.png', "expected a NumPy array, got 'image.png'"),
        (np.zeros((0, 0), np.uint8), '0×0 pixels, expected each side 16 to 8192'),
        (np.zeros((480, 0, 3), np.uint8), '0×480 pixels'),
        (np.zeros((15, 40), np.uint8), '40×15 pixels'),
        (np.zeros((16, 8193), np.uint8), '8193×16 pixels'),
        (np.zeros(100, np.uint8), r'expected shape .* got \(100,\)'),
        (np.zeros((40, 40, 2), np.uint8), r'got \(40, 40, 2\)'),
        (np.zeros((3, 40, 40), np.uint8), r'got \(3, 40, 40\)'),
        (np.zeros((1, 40, 40, 3), np.uint8), r'got \(1, 40, 40, 3\)'),
        (np.zeros((40, 40), np.int32), 'expected uint8, uint16 or float, got int32'),
        (np.zeros((40, 40), bool), 'got bool'),
        (np.zeros((40, 40), complex), 'got complex128'),
        (np.full((40, 40), np.nan), 'expected floats from 0 to 1, got nan to nan'),
        (np.full((40, 40, 3), 255.0), 'got 255 to 255'),
        (np.full((40, 40), np.inf), 'got inf to inf'),
        (np.full((40, 40), -0.5, np.float32), 'got -0.5 to -0.5'),
    ],
)
@pytest.mark.filterwarnings('error')
def test_invalid_images_are_refused(extractor, image, message):
    with pytest.raises(ValueError, match=message):
        extractor(image)
    assert len(extractor(PICTURE)) == 3  # and the next one is processed


def test_one_nan_in_one_channel_is_refused():
    image = np.full((20, 20, 3), 0.5)
    image[3, 4, 1] = np.nan
    with pytest.raises(ValueError, match='nan'):
        to_gray(image)


@pytest.mark.parametrize(
    ('width', 'height', 'resize', 'size', 'padded'),
    [
        (640, 480, 640, (640, 480), (480, 640)),
        (320, 240, 640, (320, 240), (240, 320)),
        (1920, 1080, 640, (640, 360), (360, 640)),
        (1080, 1920, 640, (360, 640), (640, 360)),
        (1000, 333, 640, (640, 213), (216, 640)),
        (1001, 333, 0, (1001, 333), (336, 1008)),
        (8192, 16, 640, (640, 1), (8, 640)),
    ],
)
def test_prepared_sizes(width, height, resize, size, padded):
    prepared = prepare(np.zeros((height, width), np.uint8), resize)
    assert prepared.size == size
    assert prepared.pixels.shape == padded
    assert prepared.image_size == (width, height)


def test_padding_repeats_the_edge():
    image = np.random.default_rng(0).integers(0, 256, (18, 21), np.uint8)
    pixels = prepare(image, 0).pixels
    np.testing.assert_array_equal(pixels, np.pad(image, ((0, 6), (0, 3)), 'edge'))


@pytest.mark.parametrize('resize', [0, 100])
def test_no_keypoints_where_the_mask_is_zero(graph, resize):
    extract = Extractor(
        graph, backend='openvino', precision='fp32', resize=resize, border=0, nms_radius=1, threshold=0.0
    )
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (150, 210), np.uint8), (0, 0), 2)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    mask = np.ones(image.shape, bool)
    mask[40:90, 60:133] = False
    everywhere = extract(image)
    for kind in (mask, mask.astype(np.uint8), mask.astype(np.uint8) * 255):
        x, y = np.rint(extract(image, kind).keypoints).astype(int).T
        assert mask[y, x].all()
        assert len(x) > 0.4 * len(everywhere)
    x, y = np.rint(everywhere.keypoints).astype(int).T
    assert not mask[y, x].all()


def test_the_best_keypoints_are_selected_within_the_mask(graph):
    extract = Extractor(graph, backend='openvino', precision='fp32', border=0, max_keypoints=1, threshold=0.001)
    image = spots(80, 60, [(20, 30)], 2)
    image[30, 60] = 200
    mask = np.ones(image.shape, np.uint8)
    mask[:, :40] = 0
    np.testing.assert_allclose(extract(image, mask).keypoints, [[60, 30]], atol=0.1)


def test_masks_of_wrong_shape_or_type_are_refused(extractor):
    for mask in (np.ones((70, 91), bool), np.ones((70, 90, 1), bool), np.ones((70, 90), np.float32), 'mask.png'):
        with pytest.raises(ValueError, match='mask: expected bool or uint8'):
            extractor(PICTURE, mask)


def test_a_prepared_mask_is_the_nearest_pixel_of_the_mask():
    mask = np.arange(90)[:, None] // 3 % 2 == np.arange(120) // 3 % 2
    prepared = prepare(np.zeros((90, 120), np.uint8), 40, mask)
    np.testing.assert_array_equal(prepared.mask, np.arange(30)[:, None] % 2 == np.arange(40) % 2)


def test_a_batch_of_different_sizes_keeps_its_order(extractor):
    images = [PICTURE, PICTURE[:50], spots(64, 64, [(30, 30)], 2), PICTURE]
    masks = [None, None, None, np.zeros(PICTURE.shape, bool)]
    assert [len(features) for features in extractor.batch(images, masks)] == [3, 3, 1, 0]
    assert extractor.batch([]) == []
    with pytest.raises(ValueError, match='zip'):
        extractor.batch(images, [None])


def test_a_bad_image_does_not_affect_the_others(extractor):
    images = [PICTURE, PICTURE[:10], PICTURE, 'image.png', PICTURE[:50]]
    masks = [None, None, np.ones((3, 3), bool), None, None]
    first, small, wrong_mask, no_image, last = extractor.batch(images, masks)
    assert (len(first), len(last)) == (3, 3)
    for error, message in ((small, '90×10 pixels'), (wrong_mask, 'mask: expected'), (no_image, 'expected a NumPy')):
        assert isinstance(error, ValueError)
        assert message in str(error)


def test_an_error_does_not_keep_its_image_in_memory(extractor):
    image = np.full((64, 64), np.nan, np.float32)
    memory = weakref.ref(image)
    gc.disable()
    try:
        errors = extractor.batch([image])
        assert isinstance(errors[0], ValueError)
        del image, errors
        assert memory() is None
    finally:
        gc.enable()


def test_an_error_of_the_network_affects_only_images_of_that_size(extractor, monkeypatch):
    network = extractor.runtime.network

    class Failing:
        def __call__(self, items):
            outputs = network(items)
            if items[0]['image'].shape[1] < 64:
                next(outputs)
                raise RuntimeError('no engine for this size')
            yield from outputs

    monkeypatch.setattr(extractor, 'runtime', dataclasses.replace(extractor.runtime, network=Failing()))
    results = extractor.batch([PICTURE[:40], PICTURE, PICTURE[:40]])
    assert [len(results[1]), str(results[2])] == [3, 'no engine for this size']
    with pytest.raises(RuntimeError, match='no engine for this size'):
        extractor(PICTURE[:40])


def test_options_can_be_changed_between_images(graph):
    extract = Extractor(graph, backend='openvino', resize=0, border=0, threshold=0.001)
    assert len(extract(PICTURE)) == 3
    extract.decode_config = dataclasses.replace(extract.decode_config, max_keypoints=2, border=15)
    assert len(extract(PICTURE)) == 2


@settings(max_examples=20)
@given(st.integers(32, 150), st.integers(32, 150), st.integers(1, 20))
def test_two_octaves_give_the_best_keypoints_of_both(graph, width, height, count):
    image = np.random.default_rng(width * height).integers(0, 256, (height, width), np.uint8)
    half = cv2.resize(image, (round(width / 2), round(height / 2)), interpolation=cv2.INTER_AREA)
    options = {'backend': 'openvino', 'precision': 'fp32', 'resize': 0, 'border': 0, 'threshold': 0.001}
    extract = Extractor(graph, max_keypoints=count, **options)
    large, small = extract.batch([image, half])
    scale = np.array([width, height]) / half.shape[::-1]
    scores = np.concatenate([large.scores, small.scores])
    order = np.argsort(-scores, kind='stable')[:count]
    both = Extractor(graph, max_keypoints=count, octaves=2, **options)(image)
    np.testing.assert_array_equal(both.scores, scores[order])
    keypoints = np.concatenate([large.keypoints, (small.keypoints + 0.5) * scale - 0.5])[order]
    np.testing.assert_allclose(both.keypoints, keypoints, atol=1e-3)
    np.testing.assert_array_equal(both.descriptors, np.concatenate([large.descriptors, small.descriptors])[order])
    assert both.image_size == (width, height)


def test_the_mask_holds_for_every_octave_and_small_images_have_one(graph):
    extract = Extractor(graph, backend='openvino', resize=0, border=0, threshold=0.001, octaves=4)
    mask = np.zeros(PICTURE.shape, bool)
    mask[:, 40:] = True
    assert len(extract(PICTURE)) > len(extract(PICTURE, mask)) > 0
    assert (extract(PICTURE, mask).keypoints[:, 0] >= 39.5).all()
    small = PICTURE[:30, :30]
    np.testing.assert_array_equal(
        extract(small).keypoints,
        Extractor(graph, backend='openvino', resize=0, border=0, threshold=0.001)(small).keypoints,
    )


def test_options_are_checked(graph):
    with pytest.raises(TypeError, match=r'unknown option color; expected resize, octaves, backend.* threshold'):
        Extractor(graph, color=3)
    with pytest.raises(ValueError, match='resize: 7 is out of range'):
        Extractor(graph, resize=7)
    assert ExtractorConfig(resize=0).resize == 0
    with pytest.raises(ValueError, match=f"model 'superpiont' is neither one of {', '.join(SHIPPED)}"):
        Extractor('superpiont')
    with pytest.raises(FileNotFoundError, match=r'none\.onnx: no such file'):
        Extractor('none.onnx')
