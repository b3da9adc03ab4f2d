"""SuperPoint's shape: what its cells see, and how the stem may halve the image."""

import pytest
import torch

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig


def small(**options):
    return SuperPoint(SuperPointConfig((4, 4, 4, 4), head_channels=4, descriptor_size=6, **options)).eval()


@pytest.mark.parametrize('stride', [1, 2])
def test_heads_are_at_an_eighth(stride):
    outputs = small(stem_stride=stride)(torch.rand(2, 1, 24, 40))
    assert outputs['logits'].shape == (2, 65, 3, 5)
    assert outputs['descriptors'].shape == (2, 6, 3, 5)


# Convolutions reach 1 and 1 at full resolution, 2 and 2 at a half, 4 and 4, 8 and 8, and the head's 8: 38 px around the
# cell. A stem that strides reads from the left pixel of two one to either side, and the next one at a half: 39 and 38.
@pytest.mark.parametrize(('stride', 'before'), [(1, 38), (2, 39)])
def test_an_impulse_reaches_the_cells_around_it(stride, before):
    network = small(norm='none', stem_stride=stride)
    for name, parameter in network.named_parameters():
        torch.nn.init.constant_(parameter, 0.1 if name.endswith('weight') else 0)
    size, cell = 13 * 8, 6
    images = torch.zeros(2 * size, 1, size, size)
    for i in range(size):
        images[i, 0, 8 * cell, i] = images[size + i, 0, i, 8 * cell] = 1
    with torch.no_grad():
        seen = network(images)['logits'][:, 0, cell, cell] > 0
    expected = list(range(8 * cell - before, 8 * cell + 7 + 38 + 1))
    assert [i.item() for i in seen[:size].nonzero()] == [i.item() for i in seen[size:].nonzero()] == expected


def test_a_stem_that_strides_is_folded_saved_and_loaded(tmp_path):
    network = small(stem_stride=2).train()
    for _ in range(3):
        network(torch.rand(4, 1, 32, 32))
    network.eval()
    checkpoint.save(tmp_path / 'network.safetensors', network)
    loaded = checkpoint.load(tmp_path / 'network.safetensors')
    assert loaded.config == network.config
    image = torch.rand(1, 1, 24, 32)
    with torch.no_grad():
        for expected, found in zip(network(image).values(), checkpoint.fold(loaded)(image).values(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match='stem_stride: expected 1 or 2, got 4'):
        SuperPointConfig(stem_stride=4)
