"""ONNX graphs of image networks: reading, precision, and the steps between network and decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, compose, helper, numpy_helper, parser

from superpoint_ros.files import written_whole
from superpoint_ros.runtimes.graph_info import GraphInfo, Shape

Graph = onnx.ModelProto


def read(path: Path) -> tuple[Graph, GraphInfo]:
    """Read a graph, including weights in separate files.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken.
    """
    try:
        graph = onnx.load(path)
        custom = sorted({f'{n.domain}.{n.op_type}' for n in graph.graph.node if n.domain not in ('', 'ai.onnx')})
        if custom:
            raise ValueError(f'{path}: expected standard ONNX operators only, found {", ".join(custom[:4])}')
        onnx.checker.check_model(graph, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{path}: not a complete .onnx file ({reason})') from error
    if opset(graph) < 13:
        raise ValueError(f'{path}: ONNX opset {opset(graph)}, expected 13 or newer')
    for weights in graph.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype.kind == 'f' and not np.isfinite(values).all():
            raise ValueError(f'{path}: tensor {weights.name} has values that are NaN or infinite')
    inputs, outputs = (
        {value.name: _shape(value) for value in ends} for ends in (graph.graph.input, graph.graph.output)
    )
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    return graph, GraphInfo(path, inputs, outputs, metadata)


def read_image_network(path: Path) -> tuple[Graph, GraphInfo]:
    """Read the graph of an image network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, or the graph has other inputs or outputs.
    """
    graph, info = read(path)

    def shapes_for(height: int, width: int) -> dict[str, Shape]:
        fixed = Graph()
        fixed.CopyFrom(graph)
        del fixed.graph.value_info[:]
        for dim, value in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 1, height, width), strict=True):
            dim.dim_value = value
        for output in fixed.graph.output:
            output.type.tensor_type.ClearField('shape')
        return {output.name: _shape(output) for output in onnx.shape_inference.infer_shapes(fixed).graph.output}

    info.check_image_network(shapes_for)
    return graph, info


def opset(graph: Graph) -> int:
    """The version of ONNX's operators that a graph uses."""
    return next((entry.version for entry in graph.opset_import if entry.domain in ('', 'ai.onnx')), 0)


def precision_of(graph: Graph) -> str:
    """The precision of a graph's convolutions: fp32, fp16, bf16, or int8 if it has quantization nodes."""
    if any(node.op_type == 'QuantizeLinear' for node in graph.graph.node):
        return 'int8'
    types = {weights.data_type for weights in graph.graph.initializer}
    return 'fp16' if TensorProto.FLOAT16 in types else 'bf16' if TensorProto.BFLOAT16 in types else 'fp32'


def export_half(graph: Path, output: Path) -> None:
    """Write a graph with its convolutions in half precision; inputs, outputs and metadata stay.

    Raises:
        ValueError: the file is broken, or its graph is not in float32.
    """
    half = with_precision(read_image_network(graph)[0], 'fp16')
    with written_whole(output) as partial:
        onnx.save(half, partial)


def with_precision(graph: Graph, precision: str) -> Graph:
    """Convert a graph from fp32 to fp16 between casts: inputs and outputs stay float32.

    A graph that has the precision already is returned as it is.

    Raises:
        ValueError: the graph has another precision, or a weight outside the range of half precision (65504).
    """
    found = precision_of(graph)
    if found == precision:
        return graph
    if (found, precision) != ('fp32', 'fp16'):
        raise ValueError(f'precision {precision}: the graph is {found} and cannot be converted; use auto or {found}')
    half = Graph()
    half.CopyFrom(graph)
    body = half.graph
    for weights in body.initializer:
        if weights.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weights)
            if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                raise ValueError(f'precision fp16: {weights.name} has weights outside its range; use fp32')
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), weights.name))
    inside = {value.name: f'{value.name}_half' for value in (*body.input, *body.output)}
    for node in body.node:
        for names in (node.input, node.output):
            names[:] = [inside.get(name, name) for name in names]
    float16, float32 = TensorProto.FLOAT16, TensorProto.FLOAT
    casts = [helper.make_node('Cast', [value.name], [inside[value.name]], to=float16) for value in body.input]
    back = [helper.make_node('Cast', [inside[value.name]], [value.name], to=float32) for value in body.output]
    nodes = [*casts, *body.node, *back]
    del body.node[:], body.value_info[:]
    body.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


TO_GRAY = """(uint8[batch, 1, height, width] image) => (float[batch, 1, height, width] gray)
<float white = {255}> {
    levels = Cast<to = 1>(image)
    gray = Div(levels, white)
}"""

TO_HEADS = {
    'logits': """(float[batch, 65, rows, columns] logits) => (float[batch, height, width] score_map)
        <int64[1] first = {0}, int64[1] dustbin = {64}, int64[1] channel = {1}> {
            probabilities = Softmax<axis = 1>(logits)
            cells = Slice(probabilities, first, dustbin, channel)
            pixels = DepthToSpace<blocksize = 8>(cells)
            score_map = Squeeze(pixels, channel)
        }""",
    'descriptors': """(float[batch, depth, rows, columns] raw) => (float16[batch, rows, columns, depth] descriptors) {
            channels_last = Transpose<perm = [0, 2, 3, 1]>(raw)
            descriptors = Cast<to = 10>(channels_last)
        }""",
    'scores': '(float[batch, 1, rows, columns] s) => (float[batch, 1, rows, columns] scores) { scores = Identity(s) }',
    'positions': """(float[batch, 2, rows, columns] p) => (float[batch, 2, rows, columns] positions) {
            positions = Identity(p)
        }""",
}
"""The steps after each output of a network, in ONNX's text format."""


def with_heads(graph: Graph) -> Graph:
    """Extend the graph of an image network to the contract of superpoint_ros.runtimes.Runtime.

    Returns:
        A graph with the input image (B, 1, H, W) uint8. Its outputs are score_map (B, H, W) float32 instead of logits,
        and descriptors (B, H/8, W/8, D) in float16, which halves what is copied from a GPU. Softmax runs in float32.
    """
    header = f'<ir_version: {graph.ir_version}, opset_import: ["" : {opset(graph)}]>'
    network = compose.add_prefix(graph, 'network/')
    before = parser.parse_model(f'{header} preprocess {TO_GRAY}')
    result = compose.merge_models(before, network, [('gray', 'network/image')])
    for name in (output.name for output in graph.graph.output):
        head = parser.parse_model(f'{header} {name} {TO_HEADS[name]}')
        result = compose.merge_models(result, head, [(f'network/{name}', head.graph.input[0].name)])
    return result


def _shape(value: onnx.ValueInfoProto) -> Shape:
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        return TensorProto.DataType.Name(kind.elem_type).lower()
    return tuple(dim.dim_value if dim.HasField('dim_value') else None for dim in kind.shape.dim)
