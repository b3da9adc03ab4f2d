"""Decoding in torch gives what decoding in NumPy gives."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros import decode as numpy_decode
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.networks import decode as torch_decode


@st.composite
def cases(draw):
    """A batch of maps of one size with ties, plateaus, slopes; sizes of the pictures, masks and a configuration."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 4)) * 8, draw(st.integers(1, 4)) * 8
    shape = (3, height, width)
    levels = rng.integers(0, draw(st.integers(2, 6)), shape) / 8
    slope = np.add.outer(np.arange(height), np.arange(width)) / 100 + np.zeros(shape)
    maps = draw(st.sampled_from([levels, rng.random(shape), slope]))
    sizes = [(width - rng.integers(8), height - rng.integers(8)) for _ in range(3)]
    masks = rng.random(shape) < 0.7 if draw(st.booleans()) else None
    config = DecodeConfig(
        threshold=draw(st.sampled_from([0.0, 0.25])),
        max_keypoints=draw(st.sampled_from([3, 100])),
        nms_radius=draw(st.integers(0, 5)),
        border=draw(st.integers(0, 5)),
    )
    return maps.astype(np.float32), sizes, masks, config


@given(cases())
@settings(max_examples=100, deadline=None)
def test_the_same_peaks(case):
    maps, sizes, masks, config = case
    index, values, settled = torch_decode.find_peaks(
        torch.from_numpy(maps),
        torch.tensor(np.array(sizes)),
        config,
        None if masks is None else torch.from_numpy(masks),
        rounds=40,
    )
    assert settled.all()
    for i, size in enumerate(sizes):
        y, x = numpy_decode.find_peaks(maps[i], size, config, None if masks is None else masks[i])
        count = int((values[i] > 0).sum())
        np.testing.assert_array_equal(index[i, :count].numpy(), y * maps.shape[2] + x)
        np.testing.assert_array_equal(values[i, :count].numpy(), maps[i, y, x])


def test_too_few_rounds_are_noticed():
    slope = torch.arange(64.0).expand(1, 64, 64) / 64
    sizes, config = torch.tensor([[64, 64]]), DecodeConfig(max_keypoints=100)
    *_, settled = torch_decode.find_peaks(slope, sizes, config, rounds=2)
    assert not settled.any()
    *_, settled = torch_decode.find_peaks(slope, sizes, config, rounds=40)
    assert settled.all()


def test_the_same_keypoints_and_descriptors():
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((2, 65, 6, 9)) * 5).astype(np.float32)
    descriptors = rng.standard_normal((2, 16, 6, 9)).astype(np.float32)
    sizes = [(70, 41), (72, 48)]
    for interpolation in ('bilinear', 'bicubic'):
        config = DecodeConfig(interpolation=interpolation, max_keypoints=40)
        outputs = {'logits': torch.from_numpy(logits), 'descriptors': torch.from_numpy(descriptors)}
        batch = torch_decode.decode_superpoint(outputs, torch.tensor(sizes), config)
        assert batch.settled.all()
        for i, size in enumerate(sizes):
            one = {'logits': logits[i], 'descriptors': descriptors[i]}
            expected = numpy_decode.decode_superpoint(one, size, config)
            count = int((batch.scores[i] > 0).sum())
            assert count == len(expected.scores) > 10
            np.testing.assert_allclose(batch.keypoints[i, :count], expected.keypoints, atol=1e-3)
            np.testing.assert_allclose(batch.scores[i, :count], expected.scores, rtol=1e-5)
            np.testing.assert_allclose(batch.descriptors[i, :count], expected.descriptors, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_same_points_of_cells(seed, radius):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, 5, (2, 1, 4, 5)) / 4).astype(np.float32)  # with ties, and points in one pixel
    positions = rng.choice(np.float32([0, 0.03, 0.5, 0.97, 1]), (2, 2, 4, 5))
    outputs = {'scores': scores, 'positions': positions, 'descriptors': rng.random((2, 8, 4, 5), np.float32) - 0.5}
    config, sizes = DecodeConfig(nms_radius=radius, border=0, max_keypoints=12), [(37, 32), (40, 29)]
    tensors = {name: torch.from_numpy(output) for name, output in outputs.items()}
    batch = torch_decode.decode_unsuperpoint(tensors, torch.tensor(sizes), config, rounds=40)
    for i, size in enumerate(sizes):
        one = {name: output[i] for name, output in outputs.items()}
        expected = numpy_decode.decode_unsuperpoint(one, size, config)
        count = int((batch.scores[i] > 0).sum())
        assert count == len(expected.scores)
        np.testing.assert_allclose(batch.keypoints[i, :count], expected.keypoints, atol=1e-4)
        np.testing.assert_array_equal(batch.scores[i, :count], expected.scores)
        np.testing.assert_allclose(batch.descriptors[i, :count], expected.descriptors, atol=1e-5)


def test_every_decoder_has_its_twin():
    assert torch_decode.DECODERS.keys() == numpy_decode.DECODERS.keys()
