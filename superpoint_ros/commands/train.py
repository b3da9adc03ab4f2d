"""`superpoint train`."""

from __future__ import annotations

HELP = """\
Usage: superpoint train --config STAGE.yaml --run FOLDER [--piece DD:HH:MM:SS] [OPTION …]

Train one stage. A run that stopped, or that its piece ended, continues when the command is repeated.

  --config STAGE.yaml   one of the stages in config/training, or your own
  --run FOLDER          gets the configuration, logs, last.ckpt and weights.safetensors
  --piece DD:HH:MM:SS   stop after this time

To list all options of model, data and trainer: pip install superpoint_ros[train]"""


def train(*words: str) -> str | None:
    """Train one stage from a configuration file."""
    try:
        from superpoint_ros.training.train import main
    except ModuleNotFoundError:
        if not {'-h', '--help'} & set(words):
            raise
        return HELP
    main(words)
    return None
