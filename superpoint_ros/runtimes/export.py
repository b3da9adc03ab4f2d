"""Exports weights to the .onnx graph that OpenVINO and TensorRT read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from torch import nn
from torch.nn import functional as F

from superpoint_ros.files import written_whole
from superpoint_ros.models import checksum
from superpoint_ros.networks import checkpoint, foreign
from superpoint_ros.networks.checkpoint import Network
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig

OPSET = 17
"""Supported by every TensorRT from 10.0 on; from 20 on TensorRT misreads some operators."""

TOLERANCE = 1e-3
"""Largest difference allowed between graph and network, relative to the largest output."""


def export(weights: Path | str, output: Path | str) -> None:
    """Write the graph of a checkpoint: the network alone, from its inputs to its raw outputs, by name.

    Image networks have the input `image` (B, 1, H, W) float32 in [0, 1], H and W multiples of 8; batch, height and
    width are free, and batch norm is folded. Matchers have the inputs of superpoint_ros.networks.lightglue.LightGlue;
    the numbers of pairs and of keypoints are free. Metadata: `model` and `config` as in a checkpoint, and `checksum`,
    the SHA-256 of the checkpoint, which is ours or one that networks.foreign knows. The graph is checked, and compared
    with the network on random inputs, before the file appears.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken or of another network.
        RuntimeError: the graph and the network differ.
    """
    network: Network | LightGlue
    if checkpoint.is_matcher(weights):
        network = checkpoint.load_matcher(weights)
        small, large = _pair(network.config, 1, 4), _pair(network.config, 2, 9)
        free = {0: 'batch', 2: 'points'}
        free_outputs = {0: 'batch', 1: 'points', 2: 'points'}
    else:
        network = checkpoint.fold(foreign.read(weights))
        small, large = ({'image': _random(*shape)} for shape in ((1, 1, 64, 64), (2, 1, 48, 72)))
        free, free_outputs = {0: 'batch', 2: 'height', 3: 'width'}, {0: 'batch', 2: 'rows', 3: 'columns'}
    with torch.inference_mode():
        names = list(network(**small))
    with written_whole(output) as partial:
        with warnings.catch_warnings():
            # The older exporter needs no further package and writes simpler graphs.
            warnings.simplefilter('ignore', DeprecationWarning)
            torch.onnx.export(
                _Outputs(network).eval(),  # the exporter restores the mode of what it is given
                tuple(small.values()),
                str(partial),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(small),
                output_names=names,
                dynamic_axes=dict.fromkeys(small, free) | dict.fromkeys(names, free_outputs),
            )
        graph = onnx.load(partial)
        onnx.helper.set_model_props(graph, checkpoint.metadata_of(network) | {'checksum': checksum(weights)})
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, partial)
        _compare(partial, network, large)


def _pair(config: LightGlueConfig, pairs: int, count: int) -> dict[str, torch.Tensor]:
    """Random inputs of a matcher, the last keypoint of each image padding."""
    inputs = {
        'keypoints': 2 * _random(pairs, 2, count, 2) - 1,
        'descriptors': F.normalize(2 * _random(pairs, 2, count, config.descriptor_size) - 1, dim=-1),
        'valid': torch.ones(pairs, 2, count),
    }
    inputs['valid'][..., -1] = 0
    return inputs | ({'scores': _random(pairs, 2, count)} if config.use_scores else {})


def _random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))


class _Outputs(nn.Module):
    """A network's outputs without their names, which the exporter takes separately."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network(*inputs).values())


def _compare(path: Path, network: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """Check that a graph, run in OpenVINO, gives what its network gives."""
    with torch.inference_mode():
        expected = network(**inputs)
    exact = {openvino.properties.hint.inference_precision: openvino.Type.f32}
    outputs = openvino.compile_model(path, 'CPU', exact)({name: tensor.numpy() for name, tensor in inputs.items()})
    for name, tensor in expected.items():
        reference = tensor.numpy()
        error = np.abs(outputs[name] - reference).max() / max(np.abs(reference).max(), 1e-12)
        if not error <= TOLERANCE:
            raise RuntimeError(f'{path}: {name} differs from the network by {error:.1g} of its largest value')
