# SPDX-License-Identifier: Apache-2.0
"""Measuring a tracker: metrics, simulated operator, datasets, runs and reports."""
