"""Small runs of the stages, from the shipped configuration files."""

import csv
from pathlib import Path

import lightning
import numpy as np

CONFIG = Path(__file__).parents[2] / 'config' / 'training'
SMALL = [
    '--model.network.channels=[8,8,16,16]',
    '--model.network.head_channels=32',
    '--model.warmup=10',
    '--data.width=64',
    '--data.height=48',
    '--data.batch_size=8',
    '--data.workers=0',
    '--data.validation_images=8',
    '--trainer.log_every_n_steps=1',
    '--trainer.logger=CSVLogger',
    '--trainer.num_sanity_val_steps=0',
    '--trainer.enable_progress_bar=false',
    '--trainer.enable_model_summary=false',
    '--trainer.accelerator=cpu',
    '--trainer.precision=32',
]


def arguments(stage, run, steps, *options):
    return [
        f'--config={CONFIG / stage}.yaml',
        f'--run={run}',
        f'--trainer.max_steps={steps}',
        *SMALL,
        f'--trainer.logger.save_dir={run}',
        *options,
    ]


def losses(run, name='loss'):
    """The curve of a run, over all of its pieces."""
    curve = {}
    for file in run.rglob('metrics.csv'):
        with file.open() as lines:
            curve |= {int(row['step']): float(row[name]) for row in csv.DictReader(lines) if row.get(name)}
    return [curve[step] for step in sorted(curve)]


def falls(curve, to):
    tenth = max(1, len(curve) // 10)
    return np.mean(curve[-tenth:]) < to * np.mean(curve[:tenth])


class Interruption(lightning.Callback):
    """Stops a piece as the clock does, but after so many steps."""

    def __init__(self, duration):
        self.steps = int(duration)

    def on_train_batch_end(self, trainer, *args):  # noqa: ARG002
        self.steps -= 1
        trainer.should_stop = self.steps == 0
