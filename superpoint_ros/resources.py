"""Finds the files that are installed with the package: models, configuration, launch files."""

from __future__ import annotations

from pathlib import Path


def find(name: str) -> Path:
    """The path of a shipped file, such as `models/superpoint.onnx`.

    Looks in the folders above this module for `share/superpoint_ros` (pip and colcon) or the source tree, which has
    package.xml.

    Raises:
        FileNotFoundError: the file is not installed.
    """
    for folder in Path(__file__).resolve().parents:
        for root in (folder / 'share' / 'superpoint_ros', folder):
            if (root / 'package.xml').is_file() and (root / name).exists():
                return root / name
    raise FileNotFoundError(f'{name} is not installed with superpoint_ros; reinstall the package')
