#!/usr/bin/env bash
# The whole evaluation of features, small enough to decide on new weights: old, new and peers in one command.
#
#   bash benchmarks/features.sh OUT METHOD,METHOD,... [NAME...]
#
#   OUT      where results and cached features go; what is there already is not measured again
#   METHODS  as for `semkey eval`, e.g. compact,runs/new.safetensors,aliked-t16
#   NAME     some of planar redkitchen cabinet icl noise rooms photos shift negatives
#            reliability reliability-kitchen (default: all)
#
# Two idle cores take about two minutes per method. THIN=2 takes every second pair of everything. Then `python benchmarks/compare.py OUT` prints all tables, and
# `python benchmarks/compare.py OUT --decide runs/new.safetensors compact` where the first is better or worse.
# SEMKEY_SHARED is the folder of the development data (default ../shared).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:?usage: benchmarks/features.sh OUT METHODS [NAME...]}
methods=${2:?usage: benchmarks/features.sh OUT METHODS [NAME...]}
data=${SEMKEY_SHARED:-../shared}/data
thin=${THIN:-1}
semkey=${SEMKEY:-semkey}
PATH="$PWD/.venv/bin:$PATH"
names=("${@:3}")
if [ ${#names[@]} -eq 0 ]; then
    names=(shift negatives icl rooms cabinet planar redkitchen photos noise)
    names+=(reliability-kitchen reliability)
fi
cabinet=$data/tum/rgbd_dataset_freiburg3_cabinet_subsampled
redkitchen=$data/7scenes/redkitchen/seq-01
rooms=()

render() { # once: 16 frames each, exact poses and depth
    local texture room
    for texture in normal low; do
        room=$out/rooms/$texture
        if [ ! -d "$room" ]; then
            $semkey render-room --out "$room" --texture "$texture" --frames 16 --seed 5
        fi
        rooms+=("$room")
    done
}

for name in "${names[@]}"; do
    common=(--methods "$methods" --out "$out/$name")
    pairs=("${common[@]}" --cache "$out/cache" --no-pictures)
    case $name in
    planar) $semkey eval planar "$data/planar" --together --estimators poselib "${pairs[@]}" ;;
    redkitchen) $semkey eval posed-pairs "$redkitchen" --gaps 10,20,40 --stride $((24 * thin)) "${pairs[@]}" ;;
    cabinet) $semkey eval posed-pairs "$cabinet" --gaps 1,2,3 --stride $((2 * thin)) "${pairs[@]}" ;;
    icl) $semkey eval posed-pairs "$data/icl-nuim/of_kt3_start" --gaps 1,4,8 --stride "$thin" "${pairs[@]}" ;;
    # Consecutive frames: the depth of 7-Scenes is not registered to its images, which a small motion forgives.
    noise) $semkey eval posed-pairs "$redkitchen" --depth --gaps 1 --stride $((12 * thin)) "${pairs[@]}" ;;
    rooms)
        render
        $semkey eval posed-pairs "${rooms[@]}" --gaps 1,5 --stride "$thin" "${pairs[@]}"
        ;;
    photos) $semkey eval posed-pairs "$data"/posed-photos/{desk,toy} --pairs $((8 / thin)) "${pairs[@]}" ;;
    shift) $semkey eval shift "$data/photos/val" --count $((8 / thin)) "${common[@]}" ;;
    reliability)
        sets=("$data/photos/val" "$cabinet" "$data/icl-nuim/of_kt3_start")
        $semkey eval reliability "${sets[@]}" --count $((24 / thin)) --gaps 1 --stride $((2 * thin)) "${pairs[@]}"
        ;;
    reliability-kitchen)
        $semkey eval reliability "$redkitchen" --depth --gaps 1 --stride $((12 * thin)) "${pairs[@]}"
        ;;
    negatives) $semkey eval negatives "$data/photos/val" --count 2 "${common[@]}" ;;
    *) echo "unknown name $name" >&2 && exit 2 ;;
    esac
done
