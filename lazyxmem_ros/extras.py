# SPDX-License-Identifier: Apache-2.0
"""The package's optional parts (extras), and what to say where one is not installed.

`pip install .` brings tracking alone. pyproject.toml lists what each extra adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MODULES = {
    "evaluation": ("jinja2", "matplotlib", "pandas", "pyarrow", "rosbags", "scipy", "skimage"),
    "ncnn": ("ncnn", "pnnx"),
    "openvino": ("openvino",),
    "operator": ("aiohttp", "msgspec"),
    "ray": ("ray",),
    "sam-hq": ("segment_anything_hq", "timm", "torchvision"),
}
"""What an extra makes importable."""
BACKENDS = ("auto", "torch", "openvino", "ncnn")
"""What may compute the convolutions: PyTorch, or an extra of the same name."""


class MissingExtraError(RuntimeError):
    """A part of the package was asked for whose libraries are not installed."""


def install_command(extra: str) -> str:
    """The command line that installs an extra."""
    return f"pip install 'lazyxmem_ros[{extra}]'"


@contextmanager
def missing_extras_explained() -> Iterator[None]:
    """Within, an import that fails for want of an extra raises MissingExtraError.

    The message names the library and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        extra = next((name for name, modules in MODULES.items() if library in modules), None)
        if extra is None:
            raise
        raise MissingExtraError(
            f"this needs the Python package {library}, which is not installed; "
            f"{install_command(extra)} brings it"
        ) from error
