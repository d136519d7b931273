# SPDX-License-Identifier: Apache-2.0
"""The package's optional parts (extras), and what to say where one is not installed.

`pip install .` brings tracking alone. pyproject.toml lists what each extra adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(RuntimeError):
    """A part of the package was asked for whose libraries are not installed."""


def install_command(extra: str) -> str:
    """The command line that installs an extra: "evaluation", "ray" or "sam-hq"."""
    return f"pip install 'lazyxmem_ros[{extra}]'"


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Imports within the block need an extra. purpose: what is being imported, for the message.

    Raises MissingExtraError, with the command that installs the extra, in place of the
    ModuleNotFoundError of a library. That of a module of this package passes.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "lazyxmem_ros":
            raise
        raise MissingExtraError(
            f"{purpose} needs the Python package {error.name}, which is not installed; "
            f"{install_command(extra)} brings it"
        ) from error
