"""Post-training quantization of an .onnx graph to 8-bit convolutions, with NNCF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from superpoint_ros import image_files
from superpoint_ros.extractor import prepare
from superpoint_ros.files import written_whole
from superpoint_ros.runtimes.onnx_graph import precision_of

LONGEST = 320
"""Longest side in pixels of the photographs that calibrate the range of each activation."""


def quantize(graph: Path, output: Path, photographs: Sequence[Path], keep: Sequence[str] = ()) -> None:
    """Write a graph with QuantizeLinear and DequantizeLinear around its convolutions.

    Inputs, outputs and metadata, with the checksum of the weights, stay. The graph is for OpenVINO: TensorRT takes
    neither its uint8 activations nor its zero points. About a hundred photographs, similar to the images that the
    network will see, calibrate it. Convolutions with names in `keep` are not quantized.

    Raises:
        ImportError: NNCF, or ONNX Runtime that it needs, is not installed.
        ValueError: the graph is not in float32 or has no such convolution, or a photograph cannot be read.
    """
    try:
        import nncf
    except ImportError as error:
        raise ImportError(f'quantization needs nncf ({error}); pip install superpoint_ros[train]') from error
    model = read(graph)
    if wrong := sorted(set(keep) - set(convolutions(model))):
        raise ValueError(f'{graph}: no convolution {", ".join(wrong)}; it has {", ".join(convolutions(model))}')
    if not photographs:
        raise ValueError('quantization needs photographs for calibration, got none')
    pixels = [prepare(image_files.read(path), LONGEST).pixels for path in photographs]
    images = [image[None, None].astype(np.float32) / np.float32(255) for image in pixels]
    name = model.graph.input[0].name
    dataset = nncf.Dataset(images, lambda image: {name: image})
    result: Any = nncf.quantize(
        model,
        dataset,
        # Zero points for activations that can be negative, as after UnSuperPoint's leaky ReLUs.
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=list(keep)) if keep else None,
    )
    onnx.checker.check_model(result)
    with written_whole(output) as partial:
        onnx.save(result, partial)


def read(graph: Path) -> onnx.ModelProto:
    """Read a graph that can be quantized.

    Raises:
        ValueError: it is not in float32.
    """
    model = onnx.load(graph)
    if (found := precision_of(model)) != 'fp32':
        raise ValueError(f'{graph}: expected a graph in fp32 to quantize, found {found}')
    return model


def convolutions(model: onnx.ModelProto) -> list[str]:
    """The names of a graph's convolutions, from input to outputs."""
    return [node.name for node in model.graph.node if node.op_type == 'Conv']
