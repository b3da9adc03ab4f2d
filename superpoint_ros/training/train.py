"""`superpoint train`: one stage of training, from a configuration file, in pieces of any length."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from superpoint_ros.networks import checkpoint

RESUMES = 'last.ckpt'
RESULT = 'weights.safetensors'


class PieceTimer(Timer):
    """Stops a run after some time, which counts anew in every piece of it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class TrainingCommand(LightningCLI):
    """Lightning's command line with the two options that make a run out of pieces."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument('--run', type=Path, required=True, help='folder of the run; a run found there goes on')
        parser.add_argument('--piece', type=str, default=None, help='stop after this time (DD:HH:MM:SS); go on later')
        parser.link_arguments('run', 'trainer.default_root_dir', compute_fn=str)


def keep_freed_memory() -> None:
    """Have glibc keep what it frees: with memory fresh from the kernel for each layer, a CPU trains 2.6 times slower.

    Other systems have no mallopt, and stay as they are.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h
    try:
        libc = ctypes.CDLL('libc.so.6')
    except OSError:
        return
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, -1)
    libc.mallopt(top_pad, 2**28)


def main(args: Sequence[str] | None = None) -> None:
    """Train until max_steps, or for one piece; a run that stopped goes on where it was.

    The run's folder gets the configuration, TensorBoard's logs, last.ckpt to go on from, and the network as it stands,
    weights.safetensors.
    """
    keep_freed_memory()
    warnings.filterwarnings('ignore', "LightningCLI's args parameter")  # it takes `superpoint train …` for a mistake
    command = TrainingCommand(
        args=list(args) if args is not None else None,
        run=False,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={'overwrite': True},
        # EndlessBatches shares samples out itself, and the run's folder has the only checkpoint.
        trainer_defaults={'use_distributed_sampler': False, 'enable_checkpointing': False},
        parser_kwargs={'prog': 'superpoint train', 'description': 'Train one stage.'},
    )
    run: Path = command.config.run
    trainer, model = command.trainer, command.model
    last = run / RESUMES
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(
        ModelCheckpoint(run, save_top_k=0, save_last=True, every_n_train_steps=200, save_on_train_epoch_end=False)
    )
    if command.config.piece:
        callbacks.append(PieceTimer(command.config.piece))
    trainer.fit(model, command.datamodule, ckpt_path=last if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)
    if trainer.is_global_zero:
        checkpoint.save(run / RESULT, model.network)


if __name__ == '__main__':
    main()
