# SPDX-License-Identifier: Apache-2.0
"""The operator's console: a web page to watch trackers in and to answer them."""
