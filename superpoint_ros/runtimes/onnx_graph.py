"""ONNX graphs of image networks: reading, precision, and the steps between network and decoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, compose, helper, numpy_helper, parser

from superpoint_ros.files import written_whole
from superpoint_ros.networks.lightglue_config import LightGlueConfig

INPUT = 'image'

OUTPUTS: tuple[dict[str, int | None], ...] = (
    {'logits': 65},
    {'logits': 65, 'descriptors': None},
    {'scores': 1, 'positions': 2, 'descriptors': None},
)
"""Outputs of MagicPoint, SuperPoint and UnSuperPoint, and their channels; None for any number."""

Graph = onnx.ModelProto


def read(path: Path) -> Graph:
    """Read a graph, including weights in separate files, and check that it is an image network that we can decode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, or the graph has other inputs or outputs.
    """
    graph = _read(path)
    inputs = {value.name: _shape(value) for value in graph.graph.input}
    if inputs != {INPUT: (None, 1, None, None)}:
        raise ValueError(
            f'{path}: expected one input, {INPUT} of float32 (batch, 1, height, width) with batch, height and width '
            f'free, found {inputs}'
        )
    outputs = {value.name: _shape(value) for value in graph.graph.output}
    expected = next((known for known in OUTPUTS if known.keys() == outputs.keys()), None)
    if expected is None:
        known = ' or '.join('+'.join(names) for names in OUTPUTS)
        raise ValueError(f'{path}: expected the outputs {known}, found {"+".join(outputs)}')
    for name, shape in outputs.items():
        channels = shape[1] if len(shape) == 4 else None
        if not isinstance(channels, int) or channels != (expected[name] or channels):
            wanted = expected[name] or 'channels'
            raise ValueError(f'{path}: output {name}: expected float32 (batch, {wanted}, rows, columns), found {shape}')
    _check_cells(path, graph)
    return graph


def read_matcher(path: Path) -> tuple[Graph, LightGlueConfig]:
    """Read the graph of a matcher, and the configuration in its metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, or the graph has other inputs or outputs.
    """
    graph = _read(path)
    try:
        config = LightGlueConfig(**json.loads(metadata(graph).get('config', '')))
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path}: not the graph of a matcher: no such configuration in its metadata') from error
    pair = (None, 2, None)
    expected = {'keypoints': (*pair, 2), 'descriptors': (*pair, config.descriptor_size), 'valid': pair}
    expected |= {'scores': pair} if config.use_scores else {}
    outputs = {'log_assignment': (None, None, None)}
    for kind, wanted, values in (('inputs', expected, graph.graph.input), ('outputs', outputs, graph.graph.output)):
        found = {value.name: _shape(value) for value in values}
        if found != wanted:
            raise ValueError(f'{path}: expected the {kind} {wanted} of float32, found {found}')
    return graph, config


def _check_cells(path: Path, graph: Graph) -> None:
    """Check that the outputs have one cell for each 8×8 pixels, where the shapes tell."""
    fixed = Graph()
    fixed.CopyFrom(graph)
    del fixed.graph.value_info[:]
    dims = [*fixed.graph.input[0].type.tensor_type.shape.dim]
    for dim, value in zip(dims, (1, 1, 8 * 6, 8 * 10), strict=True):
        dim.dim_value = value
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField('shape')
    for output in onnx.shape_inference.infer_shapes(fixed).graph.output:
        rows, columns = [*_shape(output), None, None, None, None][2:4]
        if (rows, columns) not in ((6, 10), (None, None)):
            found = f'{rows}×{columns} for 48×80 pixels'
            raise ValueError(f'{path}: output {output.name}: expected a cell for each 8×8 pixels, found {found}')


def _read(path: Path) -> Graph:
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
    return graph


def opset(graph: Graph) -> int:
    """The version of ONNX's operators that a graph uses."""
    return next((entry.version for entry in graph.opset_import if entry.domain in ('', 'ai.onnx')), 0)


def precision_of(graph: Graph) -> str:
    """The precision of a graph's convolutions: fp32, fp16, bf16, or int8 if it has quantization nodes."""
    if any(node.op_type == 'QuantizeLinear' for node in graph.graph.node):
        return 'int8'
    types = {weights.data_type for weights in graph.graph.initializer}
    return 'fp16' if TensorProto.FLOAT16 in types else 'bf16' if TensorProto.BFLOAT16 in types else 'fp32'


def descriptor_size(graph: Graph) -> int:
    """Length of the descriptors; 0 if the network has none."""
    sizes = [v.type.tensor_type.shape.dim[1].dim_value for v in graph.graph.output if v.name == 'descriptors']
    return sum(sizes)


def checksum_of_weights(graph: Graph) -> str:
    """The checksum of the weights that `superpoint export` wrote to the metadata; '' for graphs of other tools."""
    return metadata(graph).get('checksum', '')


def metadata(graph: Graph) -> dict[str, str]:
    """What `superpoint export` wrote about the model."""
    return {entry.key: entry.value for entry in graph.metadata_props}


def with_precision(graph: Graph, precision: str) -> Graph:
    """Convert a graph from fp32 to fp16; a graph that has the precision already is returned as it is.

    Raises:
        ValueError: the graph has another precision and cannot be converted.
    """
    found = precision_of(graph)
    if found == precision:
        return graph
    if (found, precision) == ('fp32', 'fp16'):
        return halved(graph)
    raise ValueError(f'precision {precision}: the graph is {found} and cannot be converted; use auto or {found}')


def export_half(graph: Path, output: Path) -> None:
    """Write a graph with its convolutions in half precision; inputs, outputs and metadata stay.

    Raises:
        ValueError: the file is broken, or its graph is not in float32.
    """
    half = with_precision(read(graph), 'fp16')
    with written_whole(output) as partial:
        onnx.save(half, partial)


def halved(graph: Graph) -> Graph:
    """Convert a graph to half precision between casts: inputs and outputs stay float32.

    Raises:
        ValueError: a weight is outside the range of half precision (65504).
    """
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
    casts = [
        helper.make_node('Cast', [value.name], [inside[value.name]], to=TensorProto.FLOAT16) for value in body.input
    ]
    back = [helper.make_node('Cast', [inside[value.name]], [value.name], to=TensorProto.FLOAT) for value in body.output]
    nodes = [*casts, *body.node, *back]
    del body.node[:], body.value_info[:]
    body.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


TO_GRAY = """(uint8[batch, 1, height, width] image) => (float[batch, 1, height, width] gray) {
    levels = Cast<to = 1>(image)
    white = Constant<value_float = 255.0>()
    gray = Div(levels, white)
}"""

TO_HEADS = {
    'logits': """(float[batch, 65, rows, columns] logits) => (float[batch, height, width] score_map) {
        probabilities = Softmax<axis = 1>(logits)
        first = Constant<value_ints = [0]>()
        dustbin = Constant<value_ints = [64]>()
        channel = Constant<value_ints = [1]>()
        cells = Slice(probabilities, first, dustbin, channel)
        pixels = DepthToSpace<blocksize = 8>(cells)
        score_map = Squeeze(pixels, channel)
    }""",
    'descriptors': """(float[batch, depth, rows, columns] raw) => (TYPE[batch, rows, columns, depth] descriptors) {
        channels_last = Transpose<perm = [0, 2, 3, 1]>(raw)
        descriptors = Cast<to = NUMBER>(channels_last)
    }""",
    'scores': '(float[batch, 1, rows, columns] s) => (float[batch, 1, rows, columns] scores) { scores = Identity(s) }',
    'positions': '(float[batch, 2, rows, columns] p) => (float[batch, 2, rows, columns] positions) '
    '{ positions = Identity(p) }',
}
"""What comes behind each output of a network, in ONNX's text format."""


def with_heads(graph: Graph, half_descriptors: bool = False) -> Graph:
    """Extend a graph to the contract of superpoint_ros.runtimes.Runtime: uint8 images in, heads out.

    Args:
        graph: as `read` returns it, in any precision; its inputs and outputs are float32.
        half_descriptors: return the descriptors as float16, which halves what is copied from a GPU.

    Returns:
        A graph with input image (B, 1, H, W) uint8 and outputs score_map (B, H, W) float32 instead of logits, and
        descriptors (B, H/8, W/8, D). Softmax is computed in float32.
    """
    kind, number = ('float16', TensorProto.FLOAT16) if half_descriptors else ('float', TensorProto.FLOAT)
    header = f'<ir_version: {graph.ir_version}, opset_import: ["" : {opset(graph)}]>'
    result = compose.add_prefix(graph, 'network/')
    result = compose.merge_models(
        parser.parse_model(f'{header} preprocess {TO_GRAY}'), result, [('gray', f'network/{INPUT}')]
    )
    for output in graph.graph.output:
        text = TO_HEADS[output.name].replace('TYPE', kind).replace('NUMBER', str(number))
        head = parser.parse_model(f'{header} {output.name} {text}')
        head = compose.add_prefix(head, f'{output.name}/', rename_outputs=False)
        connection = (f'network/{output.name}', head.graph.input[0].name)
        result = compose.merge_models(result, head, [connection])
    return result


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | str:
    """The shape of a float32 tensor, None where it is free; for other tensors the name of the type."""
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        return TensorProto.DataType.Name(kind.elem_type).lower()
    return tuple(dim.dim_value if dim.HasField('dim_value') else None for dim in kind.shape.dim)
