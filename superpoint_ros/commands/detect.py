"""`superpoint detect`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from superpoint_ros import drawing, feature_files, image_files, models
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor, ExtractorConfig, from_file
from superpoint_ros.runtimes import RuntimeConfig


def detect(
    images: Sequence[Path],
    output: Path = Path('features'),
    model: str = models.DEFAULT,
    pictures: bool = True,
    extractor: ExtractorConfig = ExtractorConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(),
) -> bool:
    """Extract the features of image files, and write them as .npz files and pictures.

    Args:
        images: image files, or folders with images; an output folder in one of them is left out.
        output: folder for NAME.npz (keypoints, scores, descriptors and image_size, as in Features) and
            NAME.png (the image with its keypoints, the best ones yellow).
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        pictures: also write pictures.

    Raises:
        FileNotFoundError: a file or folder does not exist, or a folder has no images.
        ValueError: two images would give files of the same name.
    """
    targets = targets_of(images, output)
    extract = Extractor(model, **vars(extractor), **vars(runtime), **vars(decode))
    failed = []
    for target, path in track(targets.items(), 'detecting', console=Console(stderr=True)):
        try:
            image, features = from_file(path, extract)
        except ValueError as error:
            failed.append(str(error))
            continue
        feature_files.write_npz(Path(f'{target}.npz'), features)
        if pictures:
            drawing.write(f'{target}.png', drawing.draw_keypoints(image, features))
    if failed:
        print(f'{len(failed)} of {len(targets)} images failed:', *failed, sep='\n  ', file=sys.stderr)
    return not failed


def targets_of(paths: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The image files, each by the path of its results without suffix: the file's path below the given folder.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no images.
        ValueError: two images have one target.
    """
    targets: dict[Path, Path] = {}
    for path in paths:
        nested = path.resolve() in output.resolve().parents  # its pictures would be images of the next run
        for file in image_files.files_in(path, recursive=True) if path.is_dir() else [path]:
            if nested and output.resolve() in file.resolve().parents:
                continue
            target = output / (file.relative_to(path) if path.is_dir() else file.name)
            if target in targets and targets[target] != file:
                raise ValueError(f'{targets[target]} and {file} would both give {target}.npz; run them one at a time')
            targets[target] = file
    return targets
