# SPDX-License-Identifier: Apache-2.0
"""The page: plain HTML, CSS and ES modules, served as they are."""
