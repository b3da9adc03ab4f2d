"""Finds the files that come with the package: models, configuration, launch files."""

from __future__ import annotations

from pathlib import Path


def find(name: str) -> Path:
    """The path of a shipped file, such as `models/superpoint.onnx`.

    One rule serves pip, colcon (with or without symlinks) and a source checkout: walking up from this module, the
    first folder that has `share/superpoint_ros`, or that is the source tree (it has our package.xml), holds the files.

    Raises:
        FileNotFoundError: the package's files are not there.
    """
    for folder in Path(__file__).resolve().parents:
        for root in (folder / 'share' / 'superpoint_ros', folder):
            if (root / 'package.xml').is_file() and (root / name).exists():
                return root / name
    raise FileNotFoundError(f'{name} is not installed with superpoint_ros; reinstall the package')
