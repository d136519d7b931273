# SPDX-License-Identifier: Apache-2.0
"""Measures a tracker: how good its masks are, how honest it is, how much help it takes."""
