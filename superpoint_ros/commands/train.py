"""`superpoint train`."""

from __future__ import annotations

HELP = """\
Usage: superpoint train --config STAGE.yaml --run FOLDER [--piece DD:HH:MM:SS] [OPTION …]

Train one stage. Repeat the command to continue a run that was stopped.

  --config STAGE.yaml   one of the stages in config/training, or your own
  --run FOLDER          folder for the configuration, logs, last.ckpt and weights.safetensors
  --piece DD:HH:MM:SS   stop after this time

Every value in the YAML file is also an option, such as --trainer.max_steps 1000. To list them all:

  superpoint train --config STAGE.yaml --print_config"""


def train(*words: str) -> str | None:
    """Train one stage from a configuration file."""
    if {'-h', '--help'} & set(words):
        return HELP
    from superpoint_ros.training.train import main

    main(words)
    return None
