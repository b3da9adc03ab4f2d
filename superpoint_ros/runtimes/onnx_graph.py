"""The .onnx graph as TensorRT gets it: there the precision stands in the graph, not in the options of the build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from superpoint_ros.decode import CHANNELS, decoder_for

INPUT = 'image'

Graph = onnx.ModelProto


def read(path: Path) -> Graph:
    """Read a graph, weights in files of their own included, and check that it is one of ours.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken, or takes or gives something else.
    """
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(graph, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{path}: not a complete .onnx file ({reason})') from error
    shapes = {value.name: _shape(value) for value in graph.graph.input}
    if shapes != {INPUT: (None, 1, None, None)}:
        raise ValueError(
            f'{path}: expected one input, {INPUT} of float32 (batch, 1, height, width) with batch, height and width '
            f'free, found {shapes}'
        )
    outputs = {value.name: _shape(value) for value in graph.graph.output}
    try:
        decoder_for(outputs)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    for name, shape in outputs.items():
        channels = shape[1] if len(shape) == 4 else None
        if channels is None or channels != CHANNELS.get(name, channels):
            raise ValueError(f'{path}: output {name}: expected float32 (batch, channels, rows, columns), found {shape}')
    return graph


def precision_of(graph: Graph) -> str:
    """In what the convolutions of a graph compute: fp32, fp16, bf16, or int8 if it has quantization nodes."""
    if any(node.op_type == 'QuantizeLinear' for node in graph.graph.node):
        return 'int8'
    types = {weights.data_type for weights in graph.graph.initializer}
    return 'fp16' if TensorProto.FLOAT16 in types else 'bf16' if TensorProto.BFLOAT16 in types else 'fp32'


def descriptor_size(graph: Graph) -> int:
    """Length of the descriptors; 0 if it gives none."""
    sizes = [v.type.tensor_type.shape.dim[1].dim_value for v in graph.graph.output if v.name == 'descriptors']
    return sum(sizes)


def checksum_of_weights(graph: Graph) -> str:
    """What `superpoint export` noted in the graph's metadata; empty if it was made by another tool."""
    return next((entry.value for entry in graph.metadata_props if entry.key == 'checksum'), '')


def with_precision(graph: Graph, precision: str) -> Graph:
    """A graph that computes in fp16 or fp32; made from one in fp32, or the graph itself if it is so already.

    Raises:
        ValueError: the graph is of another precision, and cannot be made so.
    """
    found = precision_of(graph)
    if found == precision:
        return graph
    if (found, precision) == ('fp32', 'fp16'):
        return halved(graph)
    raise ValueError(f'precision {precision}: the graph is in {found}, which stays as it is; ask for auto or {found}')


def halved(graph: Graph) -> Graph:
    """The graph in half precision, between casts: what goes in and what comes out stays float32.

    Raises:
        ValueError: a weight is beyond what half precision can hold (65504).
    """
    half = Graph()
    half.CopyFrom(graph)
    body = half.graph
    for weights in body.initializer:
        if weights.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weights)
            if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                raise ValueError(f'precision fp16: {weights.name} has weights beyond its range; take fp32')
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), weights.name))
    inside = {value.name: f'{value.name}_half' for value in (*body.input, *body.output)}
    for node in body.node:
        for names in (node.input, node.output):
            names[:] = [inside.get(name, name) for name in names]
    casts = [
        helper.make_node('Cast', [value.name], [inside[value.name]], to=TensorProto.FLOAT16) for value in body.input
    ]
    back = [helper.make_node('Cast', [inside[value.name]], [value.name], to=TensorProto.FLOAT) for value in body.output]
    nodes = [*casts, *body.node, *back]
    del body.node[:], body.value_info[:]
    body.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | str:
    """The shape of a float32 tensor, None where it is free; of other tensors their type."""
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        return TensorProto.DataType.Name(kind.elem_type).lower()
    return tuple(dim.dim_value if dim.HasField('dim_value') else None for dim in kind.shape.dim)
