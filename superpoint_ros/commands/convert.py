"""`superpoint convert`."""

from __future__ import annotations

from pathlib import Path

from superpoint_ros import models


def convert(checkpoint: Path, *, output: Path) -> str:
    """Convert another project's SuperPoint checkpoint to .safetensors. The license of the weights does not change.

    Args:
        checkpoint: PyTorch file in the layout of the original release, or of rpautrat/SuperPoint's PyTorch port.
        output: .safetensors file to write.

    Raises:
        ValueError: the output has another suffix, or the checkpoint is broken or of another network.
    """
    models.check_name(output, '.safetensors')
    from superpoint_ros.networks import foreign
    from superpoint_ros.networks.checkpoint import save

    save(output, foreign.read(checkpoint))
    return str(output)
