#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Everything that is timed on a GPU, in one go of under eight minutes: the frame against size,
# objects and memory's fill with the full-size network, in half precision and in float32, and the
# embedded one. Its weights need not be trained. Writes out/bench/gpu.json and out/bench/gpu.md.
#
# Usage: tools/run bench/gpu.sh          DEVICE=cpu tries it out where there is no GPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

device="${DEVICE:-cuda}"
frames="${FRAMES:-60}"
patience=150 # seconds for each of the three

measure() { # measure NAME ARGUMENT...
    timeout "$patience" python bench/frame.py --device "$device" --frames "$frames" \
        --name "gpu-$1" "${@:2}"
}
measure full-half --full-size --precision bfloat16 --fill 2 10 200
measure full-float32 --full-size --precision float32 --fill 2 10 200
measure embedded --precision auto --fill 2 10 200

python - <<'PYTHON'
import json
from pathlib import Path

from lazyxmem_ros.evaluation.printing import markdown_table

out = Path("out/bench")
names = ("full-half", "full-float32", "embedded")
found = {name: json.loads((out / f"gpu-{name}.json").read_text()) for name in names}
(out / "gpu.json").write_text(json.dumps(found, indent=1))
rows = [
    {"network": name, **{k: str(v) for k, v in row.items() if not isinstance(v, dict)}}
    for name, one in found.items()
    for row in one["rows"]
]
text = "\n".join(f"{name}: {one['of']}" for name, one in found.items())
(out / "gpu.md").write_text(f"{text}\n\n{markdown_table(rows)}")
print(text, f"\nsee {out / 'gpu.md'}")
PYTHON
