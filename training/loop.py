# SPDX-License-Identifier: Apache-2.0
"""What every training run does around its steps: batches, a curve, checkpoints, an orderly end."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import math
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lazyxmem_ros.data.location import add_data_argument
from lazyxmem_ros.images.files import write_whole
from lazyxmem_ros.signals import ENDING_SIGNALS
from training.config import ConfigError
from training.curve import plot_curve
from training.material import Material, MaterialError, load_material

FIELDS = ("step", "stage", "loss", "j", "rate", "validation_j", "tuning_j", "seconds", "waited")
"""Columns of curve.csv; a run leaves empty what it does not have."""

SAVE_EVERY = 120.0  # seconds between checkpoints
FOREIGN = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)
"""What comes of taking something else for a run's state."""


class Trainer(Protocol):
    """What a run drives: networks, an optimiser, and the step that they stand at."""

    step: int
    steps: int
    """Of the whole run."""
    log_every: int
    """Steps between rows of the curve."""
    weights_name: str
    """What the file of the averaged weights is called."""

    def maker(self) -> Callable[[int], Any]:
        """A function, for other processes too, that makes the batch of a step."""

    def train_step(self, batch: Any) -> tuple[float, float | None]:
        """One optimiser step. Returns the batch's loss and, where it was measured, its mean J."""

    def columns(self, *, last: bool) -> dict[str, str]:
        """More of FIELDS to say of this step. last: none follows."""

    def save(self, folder: Path) -> None:
        """Writes last.pt and the weights; an interruption leaves the old ones whole."""

    def load(self, path: Path) -> None:
        """Goes on from a last.pt."""


T = TypeVar("T", bound=Trainer)


class Stages(NamedTuple):
    """The stages of a run. name: of the setting that lists them; steps: of each."""

    name: str
    steps: tuple[int, ...]

    def begun(self, step: int) -> list[int]:
        """The steps of each stage that has begun when so many steps of the run are done."""
        starts = itertools.accumulate(self.steps, initial=0)
        return [steps for start, steps in zip(starts, self.steps, strict=False) if start < step]

    def check(self, begun: Sequence[int]) -> None:
        """Raises ConfigError where those that have begun do not have these numbers of steps."""
        if list(self.steps[: len(begun)]) != list(begun):
            raise ConfigError(
                f"the {self.name} that have begun there have {list(begun)} steps and must keep "
                f"them, those of the configuration have {list(self.steps)}; set the first ones "
                "back, or name another folder by --out"
            )


class Batches(IterableDataset[Any]):
    """The batches of steps `start` ... `end`, shared out among the loader's processes."""

    def __init__(self, make: Callable[[int], Any], start: int, end: int) -> None:
        self.make, self.start, self.end = make, start, end

    def __iter__(self) -> Iterator[Any]:
        """Ends with a MaterialError, not raised, where the material is at fault: raised in another
        process, it would come with that one's traceback for its text.
        """
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        try:
            yield from map(self.make, range(self.start + first, self.end, stride))
        except MaterialError as error:
            yield error


def run(
    trainer: T,
    folder: Path,
    *,
    workers: int = 1,
    stop_at: int | None = None,
    interruption: Event | None = None,
) -> T:
    """Trains to the end (or step `stop_at`), resuming from `folder` where it holds a run.

    workers: processes that make batches; 0: this one does. interruption: once set, saves and ends.
    Raises MaterialError, with the steps before saved, where no clip can be made of the material,
    RuntimeError where the loss is no number any more, ConfigError where the run in `folder` is
    another one, or something else lies there under the names of a run's files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    interruption = interruption or Event()
    end = trainer.steps if stop_at is None else min(trainer.steps, stop_at)
    if (folder / "last.pt").is_file():
        _load(trainer, folder / "last.pt")
        print(f"resuming at step {trainer.step}", flush=True)
    elif (folder / trainer.weights_name).exists():
        raise ConfigError(
            f"{folder / trainer.weights_name} is there, but no last.pt to go on from; so that "
            "nobody's weights are lost, move them, or name another folder by --out"
        )
    curve = folder / "curve.csv"
    _forget_rows(curve, after=trainer.step)
    with _signals_held():
        batches = iter(_loader(Batches(trainer.maker(), trainer.step, end), workers))
    losses: list[float] = []
    scores: list[float] = []
    waited, began, saved = 0.0, time.monotonic(), time.monotonic()
    try:
        while trainer.step < end and not interruption.is_set():
            asked = time.monotonic()
            batch = next(batches)
            if isinstance(batch, MaterialError):
                _save(trainer, folder, curve)
                raise batch
            waited += time.monotonic() - asked
            loss, score = trainer.train_step(batch)
            if not math.isfinite(loss):
                raise RuntimeError(
                    f"the loss is {loss} at step {trainer.step}; lower learning_rate"
                )
            losses.append(loss)
            if score is not None:
                scores.append(score)
            last = trainer.step == end
            if trainer.step % trainer.log_every == 0 or last:
                now = time.monotonic()
                row = {
                    "step": str(trainer.step),
                    "loss": f"{np.mean(losses):.4f}",
                    "j": f"{np.mean(scores):.4f}" if scores else "",
                    **trainer.columns(last=last),
                    "seconds": f"{now - began:.1f}",
                    "waited": f"{waited:.2f}",
                }
                _append(curve, row)
                print(" ".join(f"{k}={v}" for k, v in row.items() if v), flush=True)
                losses, scores, waited, began = [], [], 0.0, now
            if time.monotonic() - saved > SAVE_EVERY:
                _save(trainer, folder, curve)
                saved = time.monotonic()
        _save(trainer, folder, curve)
    finally:
        # Ends its processes, which take no signal: an exit that finds them waits for ever.
        del batches
    if trainer.step < end:
        print(f"stopped at step {trainer.step}; the same command goes on from there", flush=True)
    return trainer


def command_line(description: str | None, *, out: Path) -> argparse.ArgumentParser:
    """The arguments of every training. out: the run's folder by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", type=Path, help="the run's YAML file")
    add_data_argument(parser)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--stop-at", type=int, default=None, help="stop after this step")
    return parser


def material_of(arguments: argparse.Namespace) -> Material:
    """What clips are composed of, as the command line says, and says how much it is."""
    material = load_material(arguments.data)
    missing = "" if arguments.data.is_dir() else ", which is not there"
    print(
        f"{len(material.photographs)} photographs and {len(material.sequences)} real sequences: "
        f"scikit-image's samples, and those of {arguments.data}{missing}",
        flush=True,
    )
    return material


def run_as_told(trainer: Trainer, arguments: argparse.Namespace, interruption: Event) -> None:
    """Trains as the command line says."""
    run(
        trainer,
        arguments.out,
        workers=arguments.workers,
        stop_at=arguments.stop_at,
        interruption=interruption,
    )


def stop_on_signals() -> Event:
    """An event that is set by the signals that ask for the end; an ignored one stays ignored."""
    interruption = Event()
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: interruption.set())
    return interruption


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a last.pt; an interruption leaves the old one whole."""
    partial = path.with_suffix(".pt.partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _loader(batches: Batches, workers: int) -> DataLoader[Any]:
    return DataLoader(
        batches,
        batch_size=None,  # a step's batch is made as a whole
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # A forked worker inherits OpenCV's and OpenMP's thread pools without their threads, and
        # the first call that needs them never returns.
        multiprocessing_context="spawn" if workers else None,
    )


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that ask for the end wait until the block ends; processes started in it see none.

    A terminal and a service manager send them to the whole process group. Such a process ends when
    the loader tells it to, after the run has saved, or when this process is gone. Were it killed
    while it works, the next batch would be an error; while it starts, this process would wait for
    ever to hand it its work.
    """
    resource_tracker.ensure_running()  # started in the block, it would let the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _load(trainer: Trainer, path: Path) -> None:
    try:
        trainer.load(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (*FOREIGN, EOFError, pickle.UnpicklingError) as error:
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"{path} is damaged, or of a run with another configuration ({cause}); name another "
            "folder by --out"
        ) from error


def _save(trainer: Trainer, folder: Path, curve: Path) -> None:
    trainer.save(folder)
    if curve.is_file():
        plot_curve(curve, folder / "curve.png")


def _forget_rows(table: Path, *, after: int) -> None:
    """Drops the rows of steps that a resumed run does again, and the end of one that a full disk or
    a killed process broke off.

    Raises ConfigError, leaving the file as it is, where it holds something else.
    """
    if not table.is_file() or not table.stat().st_size:
        return
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        whole = [row for row in reader if None not in row.values()]
    if not {"step", "loss"} <= set(reader.fieldnames or ()) <= set(FIELDS):
        raise ConfigError(f"{table} is no run's curve; name another folder by --out")
    kept = io.StringIO(newline="")
    writer = csv.DictWriter(kept, FIELDS)
    writer.writeheader()
    writer.writerows(row for row in whole if int(row["step"]) <= after)
    write_whole(table, kept.getvalue().encode())


def _append(table: Path, row: dict[str, str]) -> None:
    new = not table.is_file() or not table.stat().st_size
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)
