"""From weights to the .onnx graph that OpenVINO and TensorRT read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from torch import nn

from superpoint_ros.files import written_whole
from superpoint_ros.models import checksum
from superpoint_ros.networks import checkpoint, foreign
from superpoint_ros.networks.checkpoint import Network

OPSET = 17
"""Old enough for every TensorRT from 10.0 on, and below 20, from where TensorRT misreads some operators."""

TOLERANCE = 1e-3
"""Largest difference allowed between graph and network, relative to the largest output."""


def export(weights: Path | str, output: Path | str) -> None:
    """Write the graph of a checkpoint: the network alone, from image to raw heads.

    Input `image` (B, 1, H, W) float32 in [0, 1], H and W multiples of 8; outputs as the network's, by name. Batch,
    height and width are free. Batch norm is folded. Metadata: `model` and `config` as in a checkpoint, and `checksum`,
    the SHA-256 of the checkpoint. The graph is checked, and compared with the network on a random image, before the
    file appears.

    Args:
        weights: a checkpoint of ours, or of another project as networks.foreign knows them.
        output: the .onnx file to write.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken or of another network.
        RuntimeError: the graph gives something else than the network.
    """
    network = checkpoint.fold(foreign.read(weights))
    image = torch.zeros(1, 1, 64, 64)
    with torch.inference_mode():
        names = list(network(image))
    cells = {0: 'batch', 2: 'rows', 3: 'columns'}
    with written_whole(output) as partial:
        with warnings.catch_warnings():
            # The exporter that needs no further package; its graphs are the plainer ones, too.
            warnings.simplefilter('ignore', DeprecationWarning)
            torch.onnx.export(
                _Outputs(network).eval(),  # the exporter restores the mode of what it is given
                (image,),
                str(partial),
                dynamo=False,
                opset_version=OPSET,
                input_names=['image'],
                output_names=names,
                dynamic_axes={'image': {0: 'batch', 2: 'height', 3: 'width'}, **dict.fromkeys(names, cells)},
            )
        graph = onnx.load(partial)
        onnx.helper.set_model_props(graph, checkpoint.metadata_of(network) | {'checksum': checksum(weights)})
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, partial)
        _compare(partial, network)


class _Outputs(nn.Module):
    """A network's outputs without their names, which the exporter takes apart from them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network(image).values())


def _compare(path: Path, network: Network) -> None:
    """Check on a random image that a graph, run in OpenVINO, gives what its network gives."""
    image = np.random.default_rng(0).random((2, 1, 48, 72), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image))
    exact = {openvino.properties.hint.inference_precision: openvino.Type.f32}
    outputs = openvino.compile_model(path, 'CPU', exact)(image)
    for name, tensor in expected.items():
        reference = tensor.numpy()
        error = np.abs(outputs[name] - reference).max() / max(np.abs(reference).max(), 1e-12)
        if not error <= TOLERANCE:
            raise RuntimeError(f'{path}: {name} differs from the network by {error:.1g} of its largest value')
