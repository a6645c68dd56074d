#!/usr/bin/env bash
# Every table of the README and docs/results.md: semkey eval on all development data.
#
#   bash benchmarks/run.sh [OUT [NAME...]]   OUT: where runs and cached features go (default runs/benchmarks); resumes there
#                                            NAME: planar redkitchen cabinet homographies reliability localisation
#                                                  speed cabinet-odometry redkitchen-odometry slam lines, and those of
#                                                  features.sh: shift negatives icl rooms noise photos
#
# SEMKEY_SHARED is the folder of the development data (default ../shared), SEMKEY_WEIGHTS one with the weights of DISK
# and LightGlue, METHODS and MATCHERS the methods; of slam and lines FEATURES the features and RUNS how many runs each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/benchmarks}
data=${SEMKEY_SHARED:-../shared}/data
methods=${METHODS:-compact,nano,orb,sift,xfeat,aliked-t16,aliked-n16,aliked-n16rot,aliked-n32,clidd-n64,clidd-s64,clidd-m64,clidd-l64}
matchers=${MATCHERS-,aliked-n16+lightglue,disk+lightglue}
features=${FEATURES:-compact,nano,orb,sift,aliked-n16,xfeat,cv2-odometry}
slow=aliked-n16,xfeat # their features are kept: frames/s and memory are those of the run that extracts
runs=${RUNS:-3}
PATH="$PWD/.venv/bin:$PATH"

names=("${@:2}")
if [ ${#names[@]} -eq 0 ]; then
    names=(planar redkitchen cabinet homographies reliability localisation speed cabinet-odometry redkitchen-odometry)
    names+=(shift negatives icl rooms noise photos slam lines)
fi
cabinet=$data/tum/rgbd_dataset_freiburg3_cabinet_subsampled
redkitchen=$data/7scenes/redkitchen/seq-01
kitti=$data/kitti/sequences/07

odometry() { # NAME SEQUENCE
    local feature
    for feature in compact nano orb sift; do
        semkey slam "$2" --features "$feature" --out "$out/slam-$1/$feature"
    done
    semkey eval trajectory "$out/slam-$1"/{compact,nano,orb,sift}/trajectory.txt "$2" --out "$out/$1"
}

slam() { # two commands, one table: what the first has measured, the second takes over
    local sets=(--rooms "$cabinet" "$redkitchen" "$redkitchen@2" "$kitti" --runs "$runs")
    if [ -z "${FEATURES:-}" ]; then
        semkey eval slam "${sets[@]}" --features "$slow" --cache "$out/cache" --out "$out/slam"
    fi
    semkey eval slam "${sets[@]}" --features "$features" --out "$out/slam"
}

lines() {
    local seed rooms=()
    for seed in 3 11 27; do
        local room=$out/rooms/low-texture-$seed
        if [ ! -d "$room" ]; then
            semkey render-room --out "$room" --texture low --motion loop --frames 120 --depth-noise --seed "$seed"
        fi
        rooms+=("$room@2")
    done
    semkey eval slam "$cabinet" "${rooms[@]}" --features compact,compact+lines,orb,orb+lines --runs "$runs" --out "$out/lines"
}

for name in "${names[@]}"; do
    to=(--out "$out/$name")
    pairs=(--methods "$methods$matchers" --cache "$out/cache" "${to[@]}")
    case $name in
    planar) semkey eval planar "$data/planar" --together "${pairs[@]}" ;;
    redkitchen) semkey eval posed-pairs "$redkitchen" --gaps 10,20,40 --stride 4 "${pairs[@]}" ;;
    cabinet) semkey eval posed-pairs "$cabinet" --gaps 1,2,3 "${pairs[@]}" ;;
    homographies) semkey eval homographies "$data/photos/val" --count 200 --methods "$methods" --cache "$out/cache" "${to[@]}" ;;
    reliability)
        semkey eval reliability "$data/photos/val" "$data/planar" --count 200 --methods "$methods" --cache "$out/cache" "${to[@]}"
        ;;
    localisation) semkey eval localisation --methods "$methods" "${to[@]}" ;;
    speed) semkey eval speed "$redkitchen"/frame-0003*.color.jpg --methods "$methods" --reference xfeat --threads 2 "${to[@]}" ;;
    cabinet-odometry) odometry "$name" "$cabinet" ;;
    redkitchen-odometry) odometry "$name" "$redkitchen" ;;
    shift | negatives | icl | rooms | noise | photos) bash benchmarks/features.sh "$out" "$methods" "$name" ;;
    slam) slam ;;
    lines) lines ;;
    *) echo "unknown name $name" >&2 && exit 2 ;;
    esac
done
python benchmarks/collect.py "$out"
