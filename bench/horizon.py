# SPDX-License-Identifier: Apache-2.0
"""How far corrections reach back with the published network's sizes: `correction_reach` and bytes.

    tools/run python bench/horizon.py [--told 3 | --docs]

Frames of 854x480 at 30 a second, five objects and the default settings. Bytes depend on shapes
alone, so the network computes nothing here: it returns tensors of the published one's shapes, and
memory is written, consolidated and copied, but not read. All that is kept is real and is counted as
in the node, with long-term memory full. Rows: while nothing is said, and while a correction of the
oldest frame in the horizon is caught up with, two frames with every new one; each for some numbers
of frames that a person told of before, which stay in memory. Writes out/bench/horizon.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from lazyxmem_ros.basics import MEBIBYTE, SECOND
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.lazy import Correction, LazyConfig, LazyTracker
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.xmem import XMem, XMemTracker
from lazyxmem_ros.xmem.memory import Memory
from lazyxmem_ros.xmem.network import STRIDE, KeyFeatures
from tools.documents import add_docs_argument, check_docs, into_documents

SIZE = (480, 854)
"""Rows and columns of the images."""
RATE = 30
"""Frames a second, by their stamps."""
OBJECTS = 5
SECONDS = 11
"""Until what is kept has settled: twice the horizon and a little more."""
OUT = Path("out/bench")
QUIET = LazyConfig(operator_corrections=False, pseudo_corrections=False, catch_up_budget=0.0)


class Shapes(XMem):
    """The published network's shapes, with nothing in them."""

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """Empty features [1, C, ...] of an image [1, 3, H', W']."""
        height, width = (side // STRIDE for side in image.shape[-2:])
        c4, c8, c16 = self.config.key_encoder.channels
        key = torch.zeros(1, self.config.key_dim, height, width)
        return KeyFeatures(
            key,
            torch.ones(1, 1, height, width),
            key.clone(),
            torch.zeros(1, c16, height, width),
            torch.zeros(1, c8, 2 * height, 2 * width),
            torch.zeros(1, c4, 4 * height, 4 * width),
        )

    def encode_value(
        self, image: Tensor, f16: Tensor, masks: Tensor, hidden: Tensor | None, **_: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Empty values [1, K, C_v, h, w], and the hidden states."""
        objects, (height, width) = masks.shape[1], f16.shape[-2:]
        return torch.zeros(1, objects, self.config.value_dim, height, width), hidden

    def decode(
        self, features: KeyFeatures, readout: Tensor, hidden: Tensor | None, **_: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [1, K, H', W'] of stripes, and renewed hidden states."""
        height, width = (side * STRIDE for side in features.key.shape[-2:])
        logits = torch.full((1, readout.shape[1], height, width), -4.0)
        for place in range(readout.shape[1]):
            logits[:, place, :, 100 * place : 100 * place + 60] = 4.0
        return logits, None if hidden is None else hidden.clone()


class Unread(Memory):
    """Everything but the reading, which changes no size."""

    def read(self, key: Tensor, selection: Tensor) -> Tensor:
        """Empty readout [K, hw, C_v]."""
        return key.new_zeros(len(self.object_ids), len(key), self._tokens.value_dim)


class UnreadTracker(XMemTracker):
    """A tracker of that memory."""

    def _make_memory(self, tokens: tuple[int, int]) -> Memory:
        network = self.network.config
        return Unread(
            self.config,
            tokens_per_frame=tokens[0] * tokens[1],
            key_dim=network.key_dim,
            value_dim=network.value_dim,
            device=self.device,
        )

    def fork(self, state: object) -> XMemTracker:
        """As it is, with that memory."""
        other = UnreadTracker(self.network, self.config, device=self.device)
        other.restore(state)  # type: ignore[arg-type]
        return other

    @torch.inference_mode()
    def fill(self, told: int) -> None:
        """Fills long-term memory, and has `told` frames that a person told of."""
        memory = self._now.memory
        assert memory is not None
        tokens, network = memory._tokens.per_frame, self.network.config
        index = -1
        while (
            len(memory.told_frames) < told
            or memory.long_term_tokens < self.config.max_long_term_tokens
        ):
            index += 1
            memory.write(
                self._now.frames + index,
                key=torch.full((tokens, network.key_dim), float(index)),
                shrinkage=torch.ones(tokens),
                selection=torch.ones(tokens, network.key_dim),
                values={i: torch.zeros(tokens, network.value_dim) for i in memory.object_ids},
                shows=torch.arange(tokens) % (OBJECTS + 1),
                told=[1 + index % OBJECTS] if index < told else [],
            )
        self._now.frames += index + 1


class Watch:
    """A run of the LazyTracker, and what it kept at the worst."""

    def __init__(self, network: XMem) -> None:
        self._tracker = UnreadTracker(network)
        self._lazy = LazyTracker(self._tracker, QUIET)
        self._frames = 0
        rng = np.random.default_rng(0)
        self._image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        self.reach, self.most = 0, 0

    def start(self, told: int) -> None:
        """Shows the objects, and fills memory."""
        self.step({1 + place: stripe(place) for place in range(OBJECTS)})
        self._lazy.close()
        self._tracker.fill(told)

    def step(self, masks: Mapping[int, NDArray[np.bool_]] | None = None) -> None:
        """One frame."""
        self._lazy.step(self._image, self._frames * SECOND // RATE, masks=masks)
        self._frames += 1

    def watch(self, frames: int) -> None:
        """So many frames, or until a correction is caught up with; notes what is kept."""
        self.reach, self.most = QUIET.correction_horizon, 0
        behind = self._lazy.frames_behind
        for _ in range(frames):
            self.step()
            self.reach = min(self.reach, self._lazy.correction_reach)
            self.most = max(self.most, self._lazy.history_bytes)
            if behind and not self._lazy.frames_behind:
                return

    def correct_oldest(self) -> None:
        """A person's answer to the oldest frame that is in reach."""
        stamp = (self._frames - 1) * SECOND // RATE - self._lazy.correction_reach
        named = -(-stamp * RATE // SECOND) * SECOND // RATE
        outcome = self._lazy.apply(Correction(named, {1: stripe(0)}))
        assert outcome.applied, outcome.reason
        assert "late" in outcome.reason

    def row(self, told: int, doing: str) -> dict[str, object]:
        """The table's row."""
        copies = [r for r in self._lazy._state.history.replayable() if r.state is not None]
        return {
            "told": told,
            "meanwhile": doing,
            "reach, s (least)": round(self.reach / SECOND, 2),
            "kept, MiB (most)": round(self.most / MEBIBYTE),
            "copies of memory": len(copies),
            "frames": len(self._lazy._state.history.replayable()),
        }


def stripe(place: int) -> NDArray[np.bool_]:
    """An object's mask."""
    mask = np.zeros(SIZE, bool)
    mask[:, 100 * place : 100 * place + 60] = True
    return mask


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--told", type=int, nargs="+", default=[0], help="frames that a person told of before"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="that pass before")
    add_docs_argument(parser)
    arguments = parser.parse_args()
    check_docs(parser, arguments)
    torch.set_num_threads(1)
    network, rows = Shapes(), []
    with Progress() as progress:
        for told in arguments.told:
            task = progress.add_task(f"{told} told", total=None)
            run = Watch(network)
            run.start(told)
            for _ in range(arguments.seconds * RATE):
                run.step()
                progress.advance(task)
            run.watch(RATE)
            rows.append(run.row(told, "nothing"))
            run.correct_oldest()
            run.watch(SECONDS * RATE)
            rows.append(run.row(told, "catching up"))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "horizon.md").write_text(markdown_table(rows))
    Console().print(screen_table(rows))
    if arguments.docs:
        into_documents("horizon", OUT, picture=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
