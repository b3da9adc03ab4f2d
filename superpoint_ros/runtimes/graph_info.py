"""The inputs and outputs of a graph, whichever library read it, and whether they are those of a network of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from superpoint_ros import models
from superpoint_ros.networks.lightglue_config import LightGlueConfig

Shape = tuple[int | None, ...] | str
"""The shape of a float32 tensor, None where it is free; the name of the type for other tensors."""

OUTPUTS: tuple[dict[str, int | None], ...] = (
    {'logits': 65},
    {'logits': 65, 'descriptors': None},
    {'scores': 1, 'positions': 2, 'descriptors': None},
)
"""Outputs of MagicPoint, SuperPoint and UnSuperPoint, and their channels; None for any number."""


@dataclass(frozen=True)
class GraphInfo:
    """Inputs, outputs and metadata of an .onnx file.

    Raises:
        ValueError: it was made from other weights than those in the .safetensors file beside it.
    """

    path: Path
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    metadata: Mapping[str, str]

    def __post_init__(self) -> None:
        weights = self.path.with_suffix('.safetensors')
        known = self.checksum_of_weights
        if known and weights.is_file() and known != models.checksum(weights):
            raise ValueError(
                f'{self.path}: made from other weights than {weights.name}; make it again with: superpoint export '
                f'{weights}'
            )

    @property
    def checksum_of_weights(self) -> str:
        """The checksum of the weights that `superpoint export` wrote; '' for graphs of other tools."""
        return self.metadata.get('checksum', '')

    @property
    def checksum(self) -> str:
        """The checksum of the weights, or of the file if that is unknown."""
        return self.checksum_of_weights or models.checksum(self.path)

    @property
    def descriptor_size(self) -> int:
        """Length of the descriptors of an image network; 0 if it has none."""
        return int(self.outputs['descriptors'][1] or 0) if 'descriptors' in self.outputs else 0

    def check_image_network(self, shapes_for: Callable[[int, int], Mapping[str, Shape]]) -> None:
        """Check that the graph is an image network that we can decode.

        For an image of some rows and columns, `shapes_for` gives the shapes of the outputs, None where unknown.

        Raises:
            ValueError: it has other inputs or outputs, or another layout.
        """
        if self.inputs != {'image': (None, 1, None, None)}:
            raise ValueError(
                f'{self.path}: expected one input, image of float32 (batch, 1, height, width) with batch, height and '
                f'width free, found {self.inputs}'
            )
        expected = next((known for known in OUTPUTS if known.keys() == self.outputs.keys()), None)
        if expected is None:
            known = ' or '.join('+'.join(names) for names in OUTPUTS)
            raise ValueError(f'{self.path}: expected the outputs {known}, found {"+".join(self.outputs)}')
        for name, shape in self.outputs.items():
            channels = shape[1] if len(shape) == 4 else None
            if not isinstance(channels, int) or channels != (expected[name] or channels):
                wanted = expected[name] or 'channels'
                raise ValueError(
                    f'{self.path}: output {name}: expected float32 (batch, {wanted}, rows, columns), found {shape}'
                )
        for name, shape in shapes_for(8 * 6, 8 * 10).items():
            if tuple(shape)[2:4] not in ((6, 10), (None, None), ()):
                found = f'{shape[2]}×{shape[3]} for 48×80 pixels'
                raise ValueError(f'{self.path}: output {name}: expected a cell for each 8×8 pixels, found {found}')

    def matcher_config(self) -> LightGlueConfig:
        """The configuration of a matcher in the metadata.

        Raises:
            ValueError: there is none, or the graph has other inputs or outputs.
        """
        try:
            config = LightGlueConfig(**json.loads(self.metadata.get('config', '')))
        except (TypeError, ValueError) as error:
            message = f'{self.path}: not the graph of a matcher: no such configuration in its metadata'
            raise ValueError(message) from error
        pair = (None, 2, None)
        expected = {'keypoints': (*pair, 2), 'descriptors': (*pair, config.descriptor_size), 'valid': pair}
        expected |= {'scores': pair} if config.use_scores else {}
        outputs = {'log_assignment': (None, None, None)}
        for kind, wanted, found in (('inputs', expected, self.inputs), ('outputs', outputs, self.outputs)):
            if found != wanted:
                raise ValueError(f'{self.path}: expected the {kind} {wanted} of float32, found {found}')
        return config
