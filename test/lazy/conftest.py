# SPDX-License-Identifier: Apache-2.0
"""Makes `scripted_tracker` and `late_runs` importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
