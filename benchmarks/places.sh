#!/usr/bin/env bash
# Global descriptors where rooms look alike: recall, rooms taken for each other, and loops of SLAM, right and false.
#
#   bash benchmarks/places.sh [OUT]    OUT: where everything goes (default runs/places)
#
# Vocabulary, rooms and runs of SLAM that are there already are not made again. Three rooms of one layout and furniture
# with other pictures, grain and light (alike-1 to -3), three plain ones with few things (plain-1 to -3), redkitchen and
# fr3_cabinet; of the rooms also two one after the other as one recording (benchmarks/join_rooms.py). Methods: compact's
# own descriptor, ViT-Ti's class token, GeM and VLAD, and both joined.
#
# SEMKEY_SHARED is the folder of the development data (default ../shared), PHOTOS one with photos for the vocabulary
# (default its photos), BACKBONE another backbone. QUICK=1: as small as can be, to see that it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/places}
data=${SEMKEY_SHARED:-../shared}/data
photos=${PHOTOS:-$data/photos/train}
backbone=${BACKBONE:-vit-tiny}
semkey=${SEMKEY:-semkey}
python=${PYTHON:-python}
PATH="$PWD/.venv/bin:$PATH"
redkitchen=$data/7scenes/redkitchen/seq-01
cabinet=$data/tum/rgbd_dataset_freiburg3_cabinet_subsampled
recorded=("$redkitchen" "$cabinet" --together)
images=300 frames=150 joined=100 thin=2 size=(--width 320 --height 240 --texel-size 0.004) few=() runs=${RUNS:-1}
if [ -n "${QUICK:-}" ]; then
    images=20 frames=40 joined=8 thin=12 size=(--width 160 --height 120 --texel-size 0.02) few=(--max-frames 16)
    recorded=("$redkitchen" --stride 12)
fi

mkdir -p "$out"
words=$out/words.safetensors
if [ ! -f "$words" ]; then $semkey vocabulary "$backbone" "$photos" --images "$images" --out "$words"; fi
walk=(--frames "$frames" --fps 3 --depth-noise "${size[@]}")
for number in 1 2 3; do
    if [ ! -d "$out/alike-$number" ]; then
        $semkey render-room --layout 40 --seed "40$number" "${walk[@]}" --out "$out/alike-$number"
    fi
    if [ ! -d "$out/plain-$number" ]; then
        $semkey render-room --texture low --seed "90$number" "${walk[@]}" --out "$out/plain-$number"
    fi
done
for kind in alike plain; do
    if [ ! -d "$out/$kind-both" ]; then
        $python benchmarks/join_rooms.py "$out/$kind-both" "$out/$kind-1" "$out/$kind-2" --frames "$joined"
    fi
done

vlad=$backbone:vlad=$words
methods=compact,$backbone:cls,$backbone:gem,$vlad,compact@own@$backbone:cls,compact@own@$backbone:gem,compact@own@$vlad
for kind in alike plain; do
    $semkey eval places "$out/$kind-1" "$out/$kind-2" "$out/$kind-3" --together --methods "$methods" \
        --out "$out/places-$kind"
done
$semkey eval places "${recorded[@]}" --methods "$methods" --out "$out/places-recorded"
$python benchmarks/differences.py "$out"/places-{alike,plain,recorded} --base compact
for set in "$out/alike-both" "$out/plain-both" "$out/alike-1" "$cabinet" "$redkitchen@$thin"; do
    $semkey eval slam "$set" --features compact "${few[@]}" --runs "$runs" --out "$out/slam-$(basename "${set%@*}")" \
        --places "$backbone:cls,$backbone:gem,$vlad,own@$backbone:cls"
done
echo "written to $out: a report.html and results.json each in places-*, slam-*"
