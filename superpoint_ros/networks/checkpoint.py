"""Checkpoints of the networks: safetensors with the model's name and configuration in the metadata."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from superpoint_ros.files import written_whole
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig
from superpoint_ros.networks.superpoint import ConvBlock, SuperPoint, SuperPointConfig
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig

Network = SuperPoint | UnSuperPoint
"""Maps images to heads."""

Networks = dict[str, tuple[Any, Any]]
"""The network and configuration classes of each model family, by the `model` of a file's metadata."""

EXTRACTORS: Networks = {
    'superpoint': (SuperPoint, SuperPointConfig),
    'unsuperpoint': (UnSuperPoint, UnSuperPointConfig),
}
MATCHERS: Networks = {'lightglue': (LightGlue, LightGlueConfig)}


def save(path: Path | str, network: Network | LightGlue) -> None:
    """Write a network to a .safetensors file; the file appears whole or not at all."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}
    with written_whole(path) as partial:
        # Not save_file, whose files only their owner can read.
        partial.write_bytes(serialize(tensors, metadata_of(network)))


def load(path: Path | str) -> Network:
    """Read an extractor's network that `save` wrote; it comes in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a complete .safetensors file of an extractor, its tensors do not fit its configuration, or some
            weights are NaN or infinite.
    """
    return _load(Path(path), EXTRACTORS)


def load_matcher(path: Path | str) -> LightGlue:
    """Read a matcher's network; as `load` otherwise."""
    return _load(Path(path), MATCHERS)


def is_matcher(path: Path | str) -> bool:
    """Whether a file is the checkpoint of a matcher; broken and foreign files are not."""
    try:
        with safe_open(path, framework='pt') as file:
            return (file.metadata() or {}).get('model') in MATCHERS
    except (SafetensorError, OSError):
        return False


def _load(path: Path, networks: Networks) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        file = safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path}: not a complete .safetensors file ({error})') from error
    with file:
        metadata = file.metadata() or {}
        if metadata.get('model') not in networks:
            raise ValueError(
                f'{path}: expected a checkpoint of superpoint_ros, which has in its metadata a model '
                f'({", ".join(networks)}) and its config; found metadata {metadata!s:.200}'
            )
        network_class, config_class = networks[metadata['model']]
        try:
            config = config_class(**json.loads(metadata['config']))
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f'{path}: the config in its metadata is missing or wrong ({error})') from error
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return assemble(path, network_class, config, shapes, file.get_tensor)


def assemble(
    path: Path,
    network_class: Any,
    config: Any,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
) -> Any:
    """Make a network of the tensors of a file, in evaluation mode, on the CPU.

    Args:
        path: of the file, for messages.
        network_class: class of the network.
        config: its configuration.
        shapes: of the tensors in the file, by name.
        read: reads one; called when all shapes are known to fit.

    Raises:
        ValueError: a tensor is missing, superfluous, of another shape, of integers where weights are expected, or has
            values that are NaN or infinite; the message names the first.
    """
    with torch.device('meta'):  # takes no memory before the shapes are known to fit
        network = network_class(config)
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in (*expected, *shapes):
        if expected.get(name) != shapes.get(name):
            shape, other = (known.get(name, 'no such tensor') for known in (expected, shapes))
            raise ValueError(f'{path}: tensor {name}: expected {shape}, found {other}')
    state = {name: read(name) for name in expected}
    for name, tensor in state.items():
        if tensor.is_floating_point() != types[name].is_floating_point:
            raise ValueError(f'{path}: tensor {name}: expected {types[name]}, found {tensor.dtype}')
        state[name] = tensor.to(types[name])
        if not torch.isfinite(state[name]).all():
            raise ValueError(f'{path}: tensor {name} has values that are NaN or infinite')
    network.load_state_dict(state, assign=True)
    return network.eval()


def metadata_of(network: Network | LightGlue) -> dict[str, str]:
    """The metadata of the network's file: the model family, and the configuration as JSON."""
    networks = EXTRACTORS | MATCHERS
    model = next(name for name, (network_class, _) in networks.items() if isinstance(network, network_class))
    return {'model': model, 'config': json.dumps(dataclasses.asdict(network.config))}


def fold(network: Network) -> Network:
    """A copy for inference, in evaluation mode: batch norm that follows a convolution is folded into it.

    Batch norm after the ReLU (norm 'after_relu') stays, because the zero padding of the next convolution follows it.
    """
    network = copy.deepcopy(network).eval()
    if network.config.norm != 'before_relu':
        return network
    for block in network.modules():
        if isinstance(block, ConvBlock):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)  # type: ignore[arg-type, type-var]
            block.norm = nn.Identity()
    network_class: Any = type(network)
    folded: Network = network_class(dataclasses.replace(network.config, norm='none'))
    folded.load_state_dict(network.state_dict())
    return folded.eval()
