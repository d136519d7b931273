# SPDX-License-Identifier: Apache-2.0
"""How the embedded models are made: material, composed clips, training and measuring."""
