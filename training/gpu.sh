#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Train the tracker on a machine with a GPU for some minutes, on packed data, going on from weights
# or from what --out holds. Usage: training/gpu.sh DATA OUT [SECONDS [WEIGHTS]]
#   DATA     made by `python -m training.pack DATA`, or the data itself
#   OUT      the run's folder; a second call goes on there
#   SECONDS  after which it saves and ends (default: 540)
#   WEIGHTS  a tracker's, to start from where OUT holds no run yet
# Needs, as `python`, one with requirements.txt, requirements-evaluation.txt and -training.txt.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '4,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
data="$(realpath -m "$1")" out="$(realpath -m "$2")" seconds="${3:-540}"
weights="${4:+$(realpath -m "$4")}"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
workers=$(($(nproc) > 2 ? $(nproc) - 1 : 1)) # clips take as long to compose as to learn from
# SIGTERM makes a run save and end; without --foreground it would end the workers, too.
status=0
timeout --foreground --signal TERM --kill-after 60 "$seconds" \
    python -m training.train_tracker training/configs/tracker_gpu.yaml \
    --data "$data" --out "$out" --parts 1 --workers "$workers" \
    ${weights:+--weights "$weights"} || status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 124 ]; then
    exit "$status"
fi
[ ! -f "$out/curve.csv" ] || tail -n 3 "$out/curve.csv"
