"""`superpoint export` and `superpoint convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from superpoint_ros import models
from superpoint_ros.runtimes import RuntimeConfig, require


def export(
    model: str,
    output: Path | None = None,
    format: Literal['onnx', 'tensorrt'] = 'onnx',  # noqa: A002 (the name of the option)
    runtime: RuntimeConfig = RuntimeConfig(),
) -> str:
    """Make the .onnx graph of a model's weights, or build the TensorRT engines of its graph ahead of time.

    Args:
        model: a shipped model's name, or the path of a .safetensors, .onnx or foreign checkpoint file.
        output: the .onnx file to write; beside the weights if not given. Engines go to the user's cache.
        format: what to make.
        runtime: for engines: precision, device, and engine_sizes, such as 640x480.

    Returns:
        Which files were written.
    """
    if format == 'tensorrt':
        require('tensorrt')
        from superpoint_ros.runtimes.tensorrt import build_engines

        return '\n'.join(str(path) for path in build_engines(models.resolve(model), runtime))
    from superpoint_ros.runtimes.export import export as export_graph

    weights = models.resolve(model).file('weights') if model in models.SHIPPED else Path(model)
    output = output or weights.with_suffix('.onnx')
    export_graph(weights, output)
    return str(output)


def convert(checkpoint: Path, output: Path) -> str:
    """Write another project's SuperPoint checkpoint as one of ours; the license of its weights stays what it is.

    Args:
        checkpoint: a PyTorch file in the layout of the original release, or of rpautrat/SuperPoint's PyTorch port.
        output: the .safetensors file to write.

    Returns:
        Which file was written.
    """
    from superpoint_ros.networks import foreign
    from superpoint_ros.networks.checkpoint import save

    save(output, foreign.read(checkpoint))
    return str(output)
