"""`superpoint label`."""

from __future__ import annotations

import sys
from pathlib import Path

from superpoint_ros import models
from superpoint_ros.training.adaptation_config import AdaptationConfig


def label(
    weights: str,
    images: Path,
    output: Path,
    device: str = 'auto',
    adaptation: AdaptationConfig = AdaptationConfig(),
) -> bool:
    """Label photographs by homographic adaptation. Repeat the command to continue a run that was stopped.

    Args:
        weights: name of a shipped model, or path of a .safetensors file: MagicPoint or SuperPoint.
        images: folder with photographs, also in subfolders.
        output: folder for the labels, a .npz file for each photograph: keypoints (N, 2) and scores (N,).
        device: device of torch; auto takes a CUDA GPU if there is one.
    """
    path = models.resolve(weights).file('weights')
    from superpoint_ros.training.adaptation import label as label_folder

    unreadable = label_folder(path, images, output, adaptation, device)
    if unreadable:
        print(f'{len(unreadable)} photographs could not be read:', *unreadable, sep='\n  ', file=sys.stderr)
    return not unreadable
