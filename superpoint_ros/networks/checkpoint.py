"""Checkpoints of the networks: safetensors with the configuration in the metadata."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from superpoint_ros.files import written_whole
from superpoint_ros.networks.superpoint import ConvBlock, SuperPoint, SuperPointConfig

NETWORKS = {'superpoint': (SuperPoint, SuperPointConfig)}
"""The network and configuration classes of each model family, by the `model` of a file's metadata."""

LAST_LAYERS = ('detector.1.', 'descriptor.1.')
"""The layers of SuperPoint that have no batch norm."""


def save(path: Path, network: SuperPoint) -> None:
    """Write a network to a .safetensors file; the file appears whole or not at all."""
    metadata = {'model': model_name(network), 'config': json.dumps(dataclasses.asdict(network.config))}
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with written_whole(path) as partial:
        save_file(tensors, partial, metadata)


def load(path: Path) -> SuperPoint:
    """Read a network that `save` wrote; it comes in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a complete .safetensors file of ours, or its tensors do not fit its configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        file = safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path}: not a complete .safetensors file ({error})') from error
    with file:
        metadata = file.metadata() or {}
        if metadata.get('model') not in NETWORKS:
            raise ValueError(
                f'{path}: expected a checkpoint of superpoint_ros (metadata with model {" or ".join(NETWORKS)} and its '
                f'config), found metadata {metadata}; other checkpoints are converted by: superpoint export'
            )
        network_class, config_class = NETWORKS[metadata['model']]
        try:
            config = config_class(**json.loads(metadata['config']))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path}: its metadata has no valid config ({error})') from error
        with torch.device('meta'):
            network = network_class(config)
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        check_shapes(path, expected, found)
        network.load_state_dict({name: file.get_tensor(name) for name in expected}, assign=True)
    return network.float().eval()


def check_shapes(path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Check that the tensors of a file are those of its network.

    Raises:
        ValueError: some are missing, too many or of another shape; the message names the first of them.
    """
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            shapes = [shapes.get(name, 'none') for shapes in (expected, found)]
            raise ValueError(f'{path}: tensor {name}: expected shape {shapes[0]}, found {shapes[1]}')


def model_name(network: nn.Module) -> str:
    """The name of a network's model family."""
    return next(name for name, (network_class, _) in NETWORKS.items() if isinstance(network, network_class))


def fold(network: SuperPoint) -> SuperPoint:
    """A copy for inference, in evaluation mode: batch norm that follows a convolution directly is folded into it.

    Batch norm after the ReLU (norm 'after_relu') stays: zero padding of the next convolution lies between.
    """
    network = copy.deepcopy(network).eval()
    if network.config.norm != 'before_relu':
        return network
    state = {}
    for name, module in network.named_modules():
        if isinstance(module, ConvBlock):
            convolution = fuse_conv_bn_eval(module.conv, module.norm)
            state |= {f'{name}.conv.{key}': tensor for key, tensor in convolution.state_dict().items()}
    state |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(LAST_LAYERS)}
    folded = SuperPoint(dataclasses.replace(network.config, norm='none'))
    folded.load_state_dict(state)
    return folded.eval()
