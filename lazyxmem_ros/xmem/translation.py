# SPDX-License-Identifier: Apache-2.0
"""Networks in the form of another runtime: made once, and kept in the user's cache.

The name of what is kept changes with the weights, the network's code, the code that translates and
the runtime's version, so that nothing stale is ever used.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from lazyxmem_ros.weights import cache_directory
from lazyxmem_ros.xmem import network as network_module
from lazyxmem_ros.xmem.checkpoint import weights_digest
from lazyxmem_ros.xmem.network import XMem

_DIGEST_DIGITS = 16

Say = Callable[[str], None]


class TranslatedNetwork(XMem):
    """A network whose parts another runtime computes. Its parameters are there to be looked at."""

    def __init__(self, folded: XMem) -> None:
        """folded: what is translated, with batch normalisation folded."""
        nn.Module.__init__(self)
        self.config = folded.config
        for name, module in folded.named_children():
            self.add_module(name, module)


class TraceablePart(nn.Module):
    """A part of a network as a module of its own, which PyTorch's tracer takes."""

    def __init__(self, network: XMem, forward: Callable[..., Sequence[Tensor]]) -> None:
        super().__init__()
        self.network = network
        self._forward = forward

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the part makes of its inputs."""
        return tuple(self._forward(*inputs))


@contextmanager
def translated(
    network: XMem,
    runtime: str,
    *,
    depends_on: Sequence[str],
    write: Callable[[Path], None],
    say: Say,
    takes: str,
) -> Iterator[Path]:
    """Within, the directory of the network's translation: the cache's, or, where that cannot be
    had, a passing one.

    Args:
        network: with batch normalisation folded.
        runtime: the directory's name in the cache.
        depends_on: the runtime's version, and the path of the code that translates.
        write: writes a translation into a directory.
        say: is told before something that takes long.
        takes: how long, in words.

    """
    kept = cache_directory() / runtime / _name(network, depends_on)
    if kept.is_dir():
        yield kept
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=".partial-", dir=kept.parent)
    except OSError as error:
        say(f"the network is translated at every start, for {kept.parent} cannot be used: {error}")
        place = tempfile.TemporaryDirectory()
    with place as name:
        made = Path(name)
        say(f"translating the network for {runtime}, once for these weights: {takes}")
        write(made)
        yield made
        if made.parent == kept.parent:
            _keep(made, kept)


def _keep(made: Path, kept: Path) -> None:
    """Move the translation to its place in one step, unless another process was quicker."""
    try:
        made.rename(kept)
        made.mkdir()  # for the TemporaryDirectory to remove
    except OSError:
        if not kept.is_dir():
            raise


def _name(network: XMem, depends_on: Sequence[str]) -> str:
    facts = [weights_digest(network), Path(network_module.__file__).read_text()]
    for fact in depends_on:
        facts.append(Path(fact).read_text() if fact.endswith(".py") else fact)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:_DIGEST_DIGITS]
