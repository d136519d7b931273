# SPDX-License-Identifier: Apache-2.0
"""XMem in plain PyTorch: frames in, probabilities out.

`__init__.pyi` says what is in it. A name is imported when it is first asked for, so that settings
are there at once, without PyTorch, which takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
