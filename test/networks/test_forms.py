"""The networks' shapes: what their cells see, and how the stem may halve the image."""

import pytest
import torch

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig

CONFIGS = {SuperPoint: SuperPointConfig, UnSuperPoint: UnSuperPointConfig}
CHANNELS = {
    SuperPoint: {'logits': 65, 'descriptors': 6},
    UnSuperPoint: {'scores': 1, 'positions': 2, 'descriptors': 6},
}

both = pytest.mark.parametrize('family', CONFIGS)


def small(family, **options):
    return family(CONFIGS[family]((4, 4, 4, 4), head_channels=4, descriptor_size=6, **options)).eval()


@both
@pytest.mark.parametrize('stride', [1, 2])
def test_heads_are_at_an_eighth(family, stride):
    outputs = small(family, stem_stride=stride)(torch.rand(2, 1, 24, 40))
    shapes = {name: tuple(output.shape) for name, output in outputs.items()}
    assert shapes == {name: (2, channels, 3, 5) for name, channels in CHANNELS[family].items()}


# Convolutions reach 1 and 1 at full resolution, 2 and 2 at a half, 4 and 4, 8 and 8, and the head's 8: 38 px around the
# cell. A stem that strides reads from the left pixel of two one to either side, and the next one at a half: 39 and 38.
@pytest.mark.parametrize(('stride', 'before'), [(1, 38), (2, 39)])
def test_an_impulse_reaches_the_cells_around_it(stride, before):
    network = small(SuperPoint, norm='none', stem_stride=stride)
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


@both
def test_a_stem_that_strides_is_folded_saved_and_loaded(family, tmp_path):
    network = small(family, stem_stride=2).train()
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


@both
def test_other_strides_are_refused(family):
    with pytest.raises(ValueError, match='stem_stride: expected 1 or 2, got 4'):
        CONFIGS[family](stem_stride=4)
