# SPDX-License-Identifier: Apache-2.0
"""How the sequences of each layout are opened."""
