"""`superpoint export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from superpoint_ros import models
from superpoint_ros.runtimes import RuntimeConfig, require


def export(
    model: str,
    output: Path | None = None,
    format: Literal['onnx', 'onnx-fp16', 'tensorrt'] = 'onnx',  # noqa: A002 - the name of the option
    runtime: RuntimeConfig = RuntimeConfig(),
) -> str:
    """Export a model as an .onnx graph, in float32 or half precision, or as TensorRT engines.

    Args:
        model: name of a shipped model, or path of a .safetensors, .onnx or foreign checkpoint file.
        output: file to write, .onnx for a graph. If not given, graphs go beside the weights (NAME.onnx,
            NAME_fp16.onnx), and engines to the folder where the nodes look for them.
        format: graph in float32 (onnx), graph with convolutions in half precision (onnx-fp16), or engines for the GPU
            of this machine (tensorrt).
        runtime: options of engines; only precision, device, engine_batch and engine_sizes have an effect.
    """
    if format == 'tensorrt':
        require('tensorrt')
        from superpoint_ros.runtimes.tensorrt import export_engines

        return '\n'.join(str(path) for path in export_engines(models.resolve(model), runtime, output))
    if output:
        models.check_name(output, '.onnx')
    if format == 'onnx-fp16':
        from superpoint_ros.runtimes.onnx_graph import export_half

        graph = models.resolve(model).file('graph')
        output = output or graph.with_name(f'{graph.stem}_fp16.onnx')
        export_half(graph, output)
        return str(output)
    from superpoint_ros.runtimes.export import export as export_graph

    weights = models.resolve(model).file('weights') if model in models.SHIPPED else Path(model)
    output = output or weights.with_suffix('.onnx')
    export_graph(weights, output)
    return str(output)
