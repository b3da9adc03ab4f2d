"""Converts checkpoints of other projects to our networks.

It reads two layouts of state dictionaries written by torch.save: the original release (conv1a … convDb, no batch norm),
and the PyTorch port in rpautrat/SuperPoint (backbone.0.0.conv … descriptor.1.bn: convolution, ReLU, batch norm).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from superpoint_ros.networks.checkpoint import Network, assemble, load
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig

State = dict[str, Tensor]

ENCODER_LAYERS = (0, 1, 3, 4, 6, 7, 9, 10)
"""Indices of the eight convolutions in SuperPoint.encoder; a pooling layer follows every second one."""

MAGIC_LEAP = {
    **{f'conv{1 + i // 2}{"ab"[i % 2]}': f'encoder.{layer}.conv' for i, layer in enumerate(ENCODER_LAYERS)},
    'convPa': 'detector.0.conv',
    'convPb': 'detector.1',
    'convDa': 'descriptor.0.conv',
    'convDb': 'descriptor.1',
}
"""Our name of each layer of the original release."""

PORT = {f'backbone.{i // 2}.{i % 2}': f'encoder.{layer}' for i, layer in enumerate(ENCODER_LAYERS)}
"""Our name of each block of the port that has another name."""

PORT_EPSILON, OUR_EPSILON = 1e-3, 1e-5
"""What the batch norms of the port and ours add to the variance."""


def read(path: Path | str) -> Network:
    """Read a checkpoint of ours (.safetensors) or of one of the known other projects (any other ending).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken or of another network; the message says what was expected.
    """
    path = Path(path)
    if path.suffix == '.safetensors' or not path.is_file():
        return load(path)
    state = _read_state(path)
    if 'conv1a.weight' in state:
        return _network(path, {_rename(name, MAGIC_LEAP): tensor for name, tensor in state.items()}, after_relu=False)
    if 'backbone.0.0.conv.weight' in state:
        return _network(path, _port_state(path, state), after_relu=True)
    raise ValueError(
        f'{path}: expected tensors named as in the original release (conv1a.weight … convDb.bias) or as in '
        f'rpautrat/SuperPoint (backbone.0.0.conv.weight … descriptor.1.bn.bias), found {_some(state)}'
    )


def _read_state(path: Path) -> State:
    try:
        state: Any = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # what torch.load raises for broken files has no common base
        reason = re.split(r'\.\s|\n', str(error))[0] or type(error).__name__  # not torch's advice to run code
        raise ValueError(f'{path}: not a checkpoint that torch can read without running code ({reason})') from error
    tensors = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    if not tensors or not all(isinstance(name, str) for name in state):
        raise ValueError(f'{path}: expected a state dictionary of tensors, found {_some(state)}')
    return state


def _some(state: Any) -> str:
    if not isinstance(state, dict):
        return f'a {type(state).__name__}'
    names = [str(name) for name in state]
    return f'{", ".join(names[:4])}{", …" if len(names) > 4 else ""}' if names else 'nothing'


def _rename(name: str, layers: dict[str, str]) -> str:
    layer, _, kind = name.rpartition('.')
    return f'{layers.get(layer, layer)}.{kind}'


def _port_state(path: Path, state: State) -> State:
    """The port's tensors under our names, with the batch norm of the last layers folded into their convolutions."""
    ours = {}
    for name, tensor in state.items():
        block, _, rest = name.partition('.conv.' if '.conv.' in name else '.bn.')
        layer = 'conv' if '.conv.' in name else 'norm'
        ours[f'{PORT.get(block, block)}.{layer}.{rest}'] = tensor
    for last in ('detector.1', 'descriptor.1'):
        parts = {name: ours.pop(name) for name in list(ours) if name.startswith(f'{last}.')}
        if not parts:
            continue
        try:
            scale = parts[f'{last}.norm.weight'] / torch.sqrt(parts[f'{last}.norm.running_var'] + PORT_EPSILON)
            shift = (parts[f'{last}.conv.bias'] - parts[f'{last}.norm.running_mean']) * scale
            ours[f'{last}.weight'] = parts[f'{last}.conv.weight'] * scale[:, None, None, None]
            ours[f'{last}.bias'] = shift + parts[f'{last}.norm.bias']
        except (KeyError, RuntimeError) as error:
            raise ValueError(f'{path}: {last} is not a convolution with batch norm ({error})') from error
    for name in [name for name in ours if name.endswith('.running_var')]:
        ours[name] = ours[name] + (PORT_EPSILON - OUR_EPSILON)
        ours.setdefault(name.replace('running_var', 'num_batches_tracked'), torch.zeros((), dtype=torch.int64))
    return ours


def _network(path: Path, state: State, after_relu: bool) -> SuperPoint:
    """The network with these tensors, which have our names."""

    def outputs(name: str) -> int:
        if name not in state or not state[name].ndim:
            raise ValueError(f'{path}: a layer is missing: {name} in our naming')
        return state[name].shape[0]

    config = SuperPointConfig(
        channels=tuple(outputs(f'encoder.{layer}.conv.weight') for layer in ENCODER_LAYERS[::2]),  # type: ignore[arg-type]
        head_channels=outputs('detector.0.conv.weight'),
        descriptor_size=outputs('descriptor.1.weight') if 'descriptor.1.weight' in state else 0,
        norm='after_relu' if after_relu else 'none',
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return assemble(path, SuperPoint, config, shapes, state.__getitem__)
