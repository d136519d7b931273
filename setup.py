# SPDX-License-Identifier: Apache-2.0
"""What the package is, pyproject.toml says."""

from setuptools import setup

setup()
