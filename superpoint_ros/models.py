"""The models: a name, or a file of the user's own, becomes the files and facts that a runtime needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from superpoint_ros import resources

SHIPPED = ('superpoint', 'superpoint_lite', 'unsuperpoint', 'unsuperpoint_lite', 'magicpoint')
"""Names of the models in models/, each a .safetensors file and an .onnx file."""

DEFAULT = 'unsuperpoint_lite'
"""The default of nodes, commands and Extractor: it keeps up with a 30 Hz camera at 640×480 on two CPU cores."""

QUANTIZED = '_int8'
"""Behind the name of a model: its graph with 8-bit convolutions."""


@dataclass(frozen=True)
class Model:
    """Where a model's files are.

    Args:
        name: the shipped model's name, or the stem of the user's file.
        weights: the .safetensors file, for torch; None if the user gave only a graph.
        graph: the .onnx file, for OpenVINO and TensorRT; None if the user gave only weights.
        quantized: the .onnx file with 8-bit convolutions, of the same name with _int8 behind it, if there is one.
    """

    name: str
    weights: Path | None
    graph: Path | None
    quantized: Path | None = None

    def file(self, kind: str) -> Path:
        """The file of this kind ('weights' or 'graph').

        Raises:
            FileNotFoundError: the model has no such file; the message says how to make one.
        """
        path = self.weights if kind == 'weights' else self.graph
        if path is None:
            have = self.graph if kind == 'weights' else self.weights
            cure = 'give the .safetensors file' if kind == 'weights' else f'make it with: superpoint export {have}'
            raise FileNotFoundError(
                f'model {self.name}: this back end needs the {kind}, and only {have} is there; {cure}'
            )
        return path


def resolve(model: str) -> Model:
    """The files of a model: a shipped name, or the path of a .safetensors or .onnx file.

    Beside a user's file its twin of the other kind (same stem) is taken along if it is there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a shipped name nor a path that ends in .safetensors or .onnx.
    """
    if model in SHIPPED:
        path = resources.find(f'models/{model}.safetensors')
    else:
        path = Path(model).expanduser()
        if path.suffix not in ('.safetensors', '.onnx'):
            raise ValueError(
                f'model {model!r} is neither one of {", ".join(SHIPPED)} nor the path of a .safetensors or .onnx file'
            )
        if not path.is_file():
            raise FileNotFoundError(f'model {path}: no such file')
    twins = {suffix: path.with_suffix(suffix) for suffix in ('.safetensors', '.onnx')}
    there = {suffix: twin if twin.is_file() else None for suffix, twin in twins.items()}
    quantized = path if path.stem.endswith(QUANTIZED) else path.with_name(f'{path.stem}{QUANTIZED}.onnx')
    return Model(path.stem, there['.safetensors'], there['.onnx'], quantized if quantized.is_file() else None)


def checksum(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal: tells the descriptors of two models apart."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
