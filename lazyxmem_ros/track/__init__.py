# SPDX-License-Identifier: Apache-2.0
"""Follows objects through a video or a folder of frames, without ROS.

`track_frames` does it for a program (`examples/` shows how), `command` is `lazyxmem track`.
`__init__.pyi` says what else is in it. A name is imported when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
