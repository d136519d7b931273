# SPDX-License-Identifier: Apache-2.0
"""Lazy tracking: when to ask for a correction, what to ask, and what memory learns.

`__init__.pyi` says what is in it. A name is imported when it is first asked for, so that settings
are there at once, without PyTorch, which takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
