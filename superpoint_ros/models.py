"""Finds the files of a model by its name or the path of one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from superpoint_ros import resources

SHIPPED = ('superpoint', 'superpoint_lite', 'unsuperpoint', 'unsuperpoint_lite', 'unsuperpoint_lite_roll', 'magicpoint')
"""Names of the models in models/, each a .safetensors file and an .onnx file."""

MATCHERS = (
    'lightglue_unsuperpoint_lite',
    'lightglue_unsuperpoint',
    'lightglue_superpoint',
    'lightglue_superpoint_lite',
)
"""Names of the learned matchers in models/, that of the default model first."""

DEFAULT = 'unsuperpoint_lite'
"""The default of nodes, commands and Extractor: it keeps up with a 30 Hz camera at 640×480 on two CPU cores."""

QUANTIZED = '_int8'
"""Suffix of the file name of a graph with 8-bit convolutions."""


@dataclass(frozen=True)
class Model:
    """The files of a model.

    Args:
        name: name of a shipped model, stem of the user's file, or folder of a training run.
        weights: .safetensors file, for torch; None if there is only a graph.
        graph: .onnx file, for OpenVINO and TensorRT; None if there are only weights.
        quantized: .onnx file with 8-bit convolutions, NAME_int8.onnx, if there is one.
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
            advice = 'use the .safetensors file' if kind == 'weights' else f'make it with: superpoint export {have}'
            raise FileNotFoundError(
                f'model {self.name}: this back end needs the {kind}, but there is only {have}; {advice}'
            )
        return path


def resolve(model: str, shipped: Sequence[str] = SHIPPED) -> Model:
    """Find the files of a model.

    Args:
        model: name of a shipped model, or path of a .safetensors or .onnx file; the file of the other kind with the
            same stem belongs to the model if it exists.
        shipped: names of shipped models of this kind: SHIPPED or MATCHERS.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a shipped name nor a path that ends in .safetensors or .onnx.
    """
    if model in shipped:
        path = resources.find(f'models/{model}.safetensors')
    else:
        path = Path(model).expanduser()
        if path.suffix not in ('.safetensors', '.onnx'):
            names = ', '.join(shipped)
            raise ValueError(f'model {model!r} is neither one of {names} nor the path of a .safetensors or .onnx file')
        if not path.is_file():
            raise FileNotFoundError(f'model {path}: no such file')
    twins = {suffix: path.with_suffix(suffix) for suffix in ('.safetensors', '.onnx')}
    there = {suffix: twin if twin.is_file() else None for suffix, twin in twins.items()}
    quantized = path if path.stem.endswith(QUANTIZED) else path.with_name(f'{path.stem}{QUANTIZED}.onnx')
    name = path.stem
    if name.removesuffix(QUANTIZED) == 'weights':  # the result of every training run; its folder tells runs apart
        name = name.replace('weights', path.resolve().parent.name)
    return Model(name, there['.safetensors'], there['.onnx'], quantized if quantized.is_file() else None)


def check_name(output: Path, suffix: str) -> None:
    """Check the name of a file to write: commands read models by their suffix.

    Raises:
        ValueError: it does not end in this suffix.
    """
    if output.suffix != suffix:
        raise ValueError(f'{output}: expected a name that ends in {suffix}')


def check_distinct(option: str, names: Sequence[str]) -> None:
    """Check the names of the models that an option lists: reports tell models apart by them.

    Raises:
        ValueError: two have the same name.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f'{option}: {", ".join(twice)} is the name of more than one; rename a file or its folder')


def checksum(path: Path | str) -> str:
    """SHA-256 of a file in hexadecimal; of the weights, it tells whether descriptors can be compared."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
