# SPDX-License-Identifier: Apache-2.0
"""Makes `scripted_tracker` importable, and the fixtures of the real tracker usable here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE))

_path = HERE.parent / "xmem" / "conftest.py"
_spec = importlib.util.spec_from_file_location("lazyxmem_test_xmem_fixtures", _path)
assert _spec is not None
assert _spec.loader is not None
_xmem = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_xmem)
golden_state = _xmem.golden_state
golden_network = _xmem.golden_network
small_network = _xmem.small_network
