#!/usr/bin/env bash
# Everything that is worth knowing of a GPU, in at most eight minutes: frames/s and memory of every preset at 448x448 and
# 640x480, batches of 1, 8 and 32, float32, half, CUDA graphs and compiled; then SLAM with extraction on the GPU.
#
#   bash benchmarks/gpu.sh [OUT [--quick]]   OUT: a folder (default runs/gpu): presets.json, slam/results.json
#                                            --quick: tiny pictures and few frames, also on a CPU, to see that it runs
#
# Without a GPU everything is measured on the CPU. No weights need be there but compact's, which come with semkey.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/gpu}
quick=${2:-}
PATH="$PWD/.venv/bin:$PATH"
frames=150 seconds=340 limit=100
if [ "$quick" = --quick ]; then
    frames=8 seconds=60 limit=600
elif [ -n "$quick" ]; then
    echo "usage: benchmarks/gpu.sh [OUT [--quick]]" >&2
    exit 2
fi

mkdir -p "$out"
room=$out/room
if [ ! -d "$room" ]; then
    semkey render-room --frames "$frames" --seed 3 --out "$room" >"$out/room.log" 2>&1 &
fi
python benchmarks/gpu.py "$out/presets.json" --seconds "$seconds" ${quick:+"$quick"}
wait
# the slowest ends with what it has: a SLAM that takes longer than this is no news of a GPU
timeout --signal=INT "$limit" semkey eval slam "$room" --features compact --runs 1 --out "$out/slam" ||
    echo "SLAM did not end within $limit s" >&2
echo "written to $out: presets.json, slam/results.json"
