"""`superpoint train`: one stage of training, from a configuration file, in pieces of any length."""

from __future__ import annotations

import ctypes
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO

from superpoint_ros.files import written_whole
from superpoint_ros.networks import checkpoint

logger = logging.getLogger(__name__)

RESUMES = 'last.ckpt'
RESULT = 'weights.safetensors'
CHECKPOINT_EVERY = 200
"""Steps between checkpoints: a killed run loses at most these."""
RESTORING = {'_restore_modules_and_callbacks', 'restore_training_state'}
"""The functions of Lightning that read a checkpoint."""


class PieceTimer(Timer):
    """Stops a run after some time; each piece of the run starts its own clock."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if (args[-1] + 1) % trainer.accumulate_grad_batches == 0:  # checkpoints do not hold accumulated gradients
            super().on_train_batch_end(trainer, *args)


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint at once. Lightning copies it from the folder of temporary files if that is on another disk.

    A run that was killed meanwhile would have lost its only checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        with written_whole(path) as partial:
            torch.save(checkpoint, partial)


class TrainingCommand(LightningCLI):
    """Lightning's command line, with the folder of a run and the time of a piece."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument('--run', type=Path | None, help='folder of the run; a run found there continues')
        parser.add_argument(
            '--piece', type=str, default=None, help='stop after this time (DD:HH:MM:SS); continue later'
        )
        parser.link_arguments('run', 'trainer.default_root_dir', compute_fn=lambda run: run and str(run))


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: training on a CPU is 2.6 times slower if each layer's memory comes from the kernel.

    Does nothing on systems without mallopt.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h
    try:
        libc = ctypes.CDLL('libc.so.6')
    except OSError:
        return
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, -1)
    libc.mallopt(top_pad, 2**28)


def quiet_libraries() -> None:
    """Show only warnings of Lightning, each once, and none that a user of this package can do nothing about."""
    for name in ('lightning.fabric', 'lightning.pytorch'):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).propagate = False
    for message in ("LightningCLI's args parameter", r'.*isinstance\(treespec, LeafSpec\)'):
        warnings.filterwarnings('ignore', message)


def main(args: Sequence[str] | None = None) -> None:
    """Train until max_steps, or for one piece; an interrupted run continues.

    The folder of the run gets the configuration, TensorBoard's logs, last.ckpt to continue from, and the averaged
    weights, weights.safetensors.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the run can continue from its last checkpoint.
        SystemExit: an option is wrong.
        ValueError: last.ckpt is broken or belongs to another run. Also what the stage and its data raise.
    """
    keep_freed_memory()
    quiet_libraries()
    command = parse(args)
    trainer, model, run = command.trainer, command.model, command.config.run
    last = run / RESUMES
    resume = last if last.exists() else None
    trainer.strategy.checkpoint_io = WholeCheckpoints()
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(
        ModelCheckpoint(
            run,
            save_top_k=0,
            save_last=True,
            every_n_train_steps=CHECKPOINT_EVERY,
            save_on_train_epoch_end=False,
            enable_version_counter=False,  # it would put new checkpoints beside the old one in a folder that moved
        )
    )
    if command.config.piece:
        callbacks.append(PieceTimer(command.config.piece))
    try:
        trainer.fit(model, command.datamodule, ckpt_path=resume, weights_only=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes Ctrl-C an exit
            raise stop.__context__ from None
        raise
    except Exception as error:
        if RESTORING & {frame.name for frame in traceback.extract_tb(error.__traceback__)}:
            what = str(error).partition('\n')[0] or type(error).__name__
            raise ValueError(f'{resume}: not a checkpoint of this run ({what}); move it away to start anew') from error
        if isinstance(error, OSError | ValueError) and 'DataLoader worker process' in str(error):
            # The message is the worker's traceback, which ends with: ValueError: what is wrong
            raise ValueError(str(error).rstrip().rpartition('\n')[2].partition(': ')[2]) from error
        raise
    trainer.save_checkpoint(last)
    if trainer.is_global_zero:
        checkpoint.save(run / RESULT, model.average)
        logger.info('%s: weights after step %d of %d', run / RESULT, trainer.global_step, trainer.max_steps)


def parse(args: Sequence[str] | None) -> TrainingCommand:
    """The trainer, stage and data that a command line describes.

    Raises:
        SystemExit: an option is missing, unknown or wrong; one line says which.
    """
    # endless_batches distributes the samples itself, and the run's folder has the only checkpoint.
    off = ('use_distributed_sampler', 'enable_checkpointing', 'enable_model_summary')
    try:
        command = TrainingCommand(
            args=list(args) if args is not None else None,
            run=False,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={'overwrite': True},
            trainer_defaults=dict.fromkeys(off, False),
            parser_kwargs={'prog': 'superpoint train', 'description': 'Train one stage.', 'exit_on_error': False},
        )
        if command.config.run is None:
            raise ValueError('--run is missing: name a folder for the run')
    except (ArgumentError, TypeError, ValueError) as error:
        print(f'superpoint train: {reason(error)}', file=sys.stderr)
        raise SystemExit(2) from error
    return command


def reason(error: Exception) -> str:
    """What is wrong, in one line, without jsonargparse's dump of the arguments of a class."""
    message = re.sub(r".*?Errors:\s*- (.*?)\s*- Expected a <class 'NoneType'>.*", r'\1', str(error), flags=re.DOTALL)
    return ' '.join(re.sub(r"Problem with given class_path '.*\.(\w+)':", r'\1:', message).split())


if __name__ == '__main__':
    main()
