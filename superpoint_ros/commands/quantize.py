"""`superpoint quantize`."""

from __future__ import annotations

from pathlib import Path

from superpoint_ros import image_files, models


def quantize(
    model: str,
    photographs: Path,
    pairs: Path,
    output: Path | None = None,
    calibration: int = 128,
    count: int = 0,
    draws: int = 3,
    seed: int = 0,
) -> str:
    """Make a graph with 8-bit convolutions, and write it only if it is nearly as accurate as the graph in fp32.

    Args:
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        photographs: folder of photographs to calibrate with.
        pairs: folder of other photographs; random pairs made from them compare the graph with fp32.
        output: .onnx file to write; if not given, beside the graph with _int8 appended to its name.
        calibration: number of photographs to calibrate with, evenly spaced.
        count: number of photographs to compare on, evenly spaced; 0 for all.
        draws: number of random pairs of each photograph.
        seed: seed of the first draw; each following draw has the next seed.
    """
    if draws < 1:
        raise ValueError(f'draws: {draws} is out of range, expected at least 1')
    graph = models.resolve(model).file('graph')
    output = output or graph.with_name(f'{graph.stem}{models.QUANTIZED}.onnx')
    models.check_name(output, '.onnx')
    from superpoint_ros.evaluation import datasets, quantization
    from superpoint_ros.evaluation.protocols import PROTOCOLS

    images = datasets.spread(image_files.files_in(photographs), calibration)
    size = PROTOCOLS['paper'].description.size
    loaders = [
        loader
        for draw in range(seed, seed + draws)
        for loader in datasets.spread(datasets.random_pairs(pairs, draw, size), count)
    ]
    table = quantization.quantize(graph, output, images, loaders)
    return f'{table}\n\n{len(loaders)} pairs of {pairs}, from seed {seed} on. Wrote {output}.'
