# SPDX-License-Identifier: Apache-2.0
"""Finds weights files: embedded in the package, in the user's cache, or online.

The embedded models come with the package; their checksums stand in `SHA256SUMS` beside them. The
published ones are kept in the user's cache directory. Their authors publish no checksums, so a
download is held to its size and, when it is loaded, to the shapes of the network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pooch

from lazyxmem_ros.basics import user_path

MEGABYTE = 1_000_000
TRUNCATED_BELOW = 0.99
"""Share of its parameters' bytes below which a file is taken to be truncated."""
DEFAULT_TRACKER = "tracker"
EMBEDDED_INTERNAL_SIZE = 360
"""Short side, pixels, that suits the embedded tracker: 240 is quicker, 480 hardly better."""
CACHE_VARIABLE = "LAZYXMEM_WEIGHTS"
"""Environment variable that names another directory for published weights."""

_HERE = Path(__file__).parent
_XMEM = "https://github.com/hkchengrex/XMem/releases/download/v1.0"
_SAM_HQ = "https://huggingface.co/lkeab/hq-sam/resolve/main"
_XMEM_BYTES = 248_881_648


class WeightsError(RuntimeError):
    """Weights are not there, not known, or not what they should be; the message says what to do."""


@dataclass(frozen=True)
class Weights:
    """One known weights file."""

    name: str
    file: str
    about: str
    licence: str
    parameters_bytes: int
    """Bytes of the network's entries alone: a clearly smaller file is truncated."""
    url: str | None = None
    """None: embedded in the package."""

    @property
    def path(self) -> Path:
        """Where the file lies, or would."""
        return (_HERE if self.url is None else cache_directory()) / self.file

    @property
    def present(self) -> bool:
        """Whether the file is on this machine."""
        return self.path.is_file()


def cache_directory() -> Path:
    """Directory of the published weights: $LAZYXMEM_WEIGHTS, or the user's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    return user_path(named) if named else Path(pooch.os_cache("lazyxmem_ros"))


def _published(name: str, file: str, about: str, licence: str, size: int, base: str) -> Weights:
    return Weights(name, file, about, licence, size, f"{base}/{file}")


KNOWN: tuple[Weights, ...] = (
    Weights(
        "tracker",
        "tracker.safetensors",
        "small XMem, embedded: no download, runs on a CPU",
        "Apache-2.0",
        MEGABYTE,
    ),
    Weights(
        "refiner",
        "refiner.safetensors",
        "small corrector, embedded: clicks, a box and a rough mask to a mask",
        "Apache-2.0",
        MEGABYTE,
    ),
    _published(
        "xmem",
        "XMem.pth",
        "published XMem (DAVIS and YouTubeVOS)",
        "MIT",
        _XMEM_BYTES,
        _XMEM,
    ),
    _published(
        "xmem-s012",
        "XMem-s012.pth",
        "published XMem, BL30K too, recommended: the Lazy-XMem paper's",
        "MIT",
        _XMEM_BYTES,
        _XMEM,
    ),
    _published(
        "sam-hq-tiny",
        "sam_hq_vit_tiny.pth",
        "SAM-HQ on ViT-Tiny: the quickest",
        "Apache-2.0",
        42_355_080,
        _SAM_HQ,
    ),
    _published(
        "sam-hq-b",
        "sam_hq_vit_b.pth",
        "SAM-HQ on ViT-B",
        "Apache-2.0",
        379_227_328,
        _SAM_HQ,
    ),
    _published(
        "sam-hq-l",
        "sam_hq_vit_l.pth",
        "SAM-HQ on ViT-L",
        "Apache-2.0",
        1_254_705_344,
        _SAM_HQ,
    ),
    _published(
        "sam-hq-h",
        "sam_hq_vit_h.pth",
        "SAM-HQ on ViT-H: the most accurate",
        "Apache-2.0",
        2_570_745_024,
        _SAM_HQ,
    ),
)


def find(name: str) -> Weights:
    """The known file of this name. Raises `WeightsError` that lists the names."""
    for weights in KNOWN:
        if weights.name == name:
            return weights
    names = ", ".join(w.name for w in KNOWN)
    raise WeightsError(f"no weights are called {name!r}; known are {names}")


def locate(name_or_path: str) -> Path:
    """The existing file that a known name ("" is the embedded tracker) or a path stands for.

    Raises `WeightsError` that says how to get the file.
    """
    if not name_or_path:
        name_or_path = DEFAULT_TRACKER
    known = {w.name: w for w in KNOWN}.get(name_or_path)
    path = known.path if known else user_path(name_or_path)
    if path.is_file():
        return path
    if known is None:
        names = ", ".join(w.name for w in KNOWN)
        raise WeightsError(f"there is no weights file {path}, and no known name: {names}")
    if known.url is None:
        raise WeightsError(f"the embedded weights {path} are missing: reinstall lazyxmem_ros")
    raise WeightsError(
        f"{known.file} is not on this machine. With internet: `lazyxmem weights fetch "
        f"{known.name}`. Without: {by_hand(known)}"
    )


def by_hand(weights: Weights) -> str:
    """What a person without a connection has to do, as a clause for a message."""
    return f"download {weights.url} on another machine and put the file at {weights.path}"


def fetch(weights: Weights, *, progress: bool = True) -> Path:
    """Download a published file into the cache, unless it is there; returns its path.

    Raises `WeightsError` where it cannot be had, or is truncated.
    """
    if weights.url is None or weights.present:
        return weights.path
    try:
        pooch.retrieve(
            weights.url,
            known_hash=None,
            fname=weights.file,
            path=cache_directory(),
            progressbar=progress and find_spec("tqdm") is not None,  # which pooch may lack
        )
    except (OSError, ValueError) as error:  # the connection's errors are OSErrors
        raise WeightsError(
            f"{weights.url} cannot be had ({type(error).__name__}). {by_hand(weights)}"
        ) from error
    try:
        check(weights)
    except WeightsError:
        weights.path.unlink(missing_ok=True)
        raise
    return weights.path


def check(weights: Weights) -> str:
    """Check a file's size and, where one is known, its checksum; returns its SHA-256.

    Raises `WeightsError` where the file is missing, truncated or altered.
    """
    if not weights.present:
        raise WeightsError(f"{weights.file} is not at {weights.path}")
    advice = "reinstall lazyxmem_ros" if weights.url is None else "remove it, and fetch it anew"
    size = weights.path.stat().st_size
    if size < TRUNCATED_BELOW * weights.parameters_bytes:
        raise WeightsError(
            f"{weights.path} has {size / MEGABYTE:.1f} MB, less than the "
            f"{weights.parameters_bytes / MEGABYTE:.0f} MB of its parameters: it is truncated; "
            f"{advice}"
        )
    digest = sha256(weights.path)
    expected = _embedded_checksums().get(weights.file) if weights.url is None else None
    if expected and digest != expected:
        raise WeightsError(
            f"{weights.path} was altered: its SHA-256 is {digest}, not {expected}; {advice}"
        )
    return digest


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(MEGABYTE):
            digest.update(chunk)
    return digest.hexdigest()


def _embedded_checksums() -> dict[str, str]:
    sums = _HERE / "SHA256SUMS"
    if not sums.is_file():
        return {}
    pairs = (line.split() for line in sums.read_text().splitlines() if line.strip())
    return {name: digest for digest, name in pairs}
