"""Configuration of LightGlue networks; needs no torch, so that every back end can read it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LightGlueConfig:
    """Shape of a LightGlue network, and whose features it matches. The paper's is 256 wide and has 9 layers.

    Args:
        descriptor_size: length D of the descriptors.
        width: length of a keypoint's state, a multiple of twice the heads.
        heads: attention heads; each takes width / heads elements.
        layers: pairs of a self-attention and a cross-attention.
        use_scores: whether the detector's scores are an input; the paper does not use them.
        extractor: name of the model whose features the network was trained for.
        extractor_checksum: SHA-256 of that model's weights.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    descriptor_size: int = 256
    width: int = 128
    heads: int = 4
    layers: int = 3
    use_scores: bool = True
    extractor: str = ''
    extractor_checksum: str = ''

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value).__name__ != field.type:
                raise ValueError(f'{field.name}: expected {field.type}, got {value!r}')
            most = 64 if field.name in ('heads', 'layers') else 4096
            if field.type == 'int' and not 1 <= value <= most:
                raise ValueError(f'{field.name}: expected a number from 1 to {most}, got {value}')
        if self.width % (2 * self.heads):
            raise ValueError(f'width: expected a multiple of {2 * self.heads}, twice the heads, got {self.width}')
