#!/usr/bin/env bash
# The four ways in which a backbone's tokens become finer (model.upsampling), trained equally long and measured.
#
#   bash benchmarks/upsampling.sh [OUT]    OUT: where everything goes (default runs/upsampling); resumes there
#
# Each is the hybrid over ViT-Ti from the same random weights on the same PAIRS pairs (default 2400), one after the
# other; `seed-1` is bilinear with another seed: differences no larger than its own are chance. Then pose pairs, times
# and memory. NAMES="bilinear attention" trains and measures only these; what is there already is not done again.
#
# SEMKEY_SHARED is the folder of the development data (default ../shared), PHOTOS one with photos to train on (default
# its photos), BACKBONE another backbone. QUICK=1: as small as can be, to see that it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/upsampling}
data=${SEMKEY_SHARED:-../shared}/data
photos=${PHOTOS:-$data/photos/train}
backbone=${BACKBONE:-vit-tiny}
pairs=${PAIRS:-2400}
names=${NAMES:-bilinear attention resolution shift-average seed-1}
semkey=${SEMKEY:-semkey}
python=${PYTHON:-python}
cabinet=$data/tum/rgbd_dataset_freiburg3_cabinet_subsampled
redkitchen=$data/7scenes/redkitchen/seq-01
frames=60 thin=1 rounds=() small=()
if [ -n "${QUICK:-}" ]; then
    pairs=${PAIRS:-8} frames=12 thin=8 rounds=(--rounds 3 --warmup 1 --no-memory)
    small=(--set validation.pairs=2 --set validation.pictures=0)
fi
PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1

train() { # NAME UPSAMPLING SEED
    local folder=$out/$1 resume=()
    if [ -f "$folder/trained" ]; then return; fi
    if [ -d "$folder" ]; then resume=(--resume); fi
    $semkey train compact-small --set name="$1" --set seed="$3" --set model.backbone="$backbone" \
        --set model.upsampling="$2" --set data.photos="$photos" --set pairs_per_epoch="$pairs" \
        --set stages.detector.epochs=1 --set stages.detector.detected_from=$((pairs / 3)) \
        --set optimizer.warm_up=$((pairs / 5)) --set stages.reliability.epochs=0 --set run.threads=1 \
        --set run.workers=0 --set run.cosines_every=0 --set run.tensorboard=false \
        "${small[@]}" --out "$folder" "${resume[@]}"
    touch "$folder/trained"
}

mkdir -p "$out"
methods=()
for name in $names; do
    case $name in
    seed-1) train "$name" bilinear 1 ;;
    *) train "$name" "$name" 0 ;;
    esac
    methods+=("$out/$name/$name.safetensors")
done
rooms=()
for seed in 901 902; do # plain walls, few things
    room=$out/rooms/$seed
    rooms+=("$room")
    if [ -d "$room" ]; then continue; fi
    $semkey render-room --out "$room" --texture low --frames "$frames" --fps 5 --seed "$seed"
done

common=(--methods "$(IFS=,; echo "${methods[*]}")" --cache "$out/cache" --no-pictures)
icl=$data/icl-nuim/of_kt3_start
$semkey eval posed-pairs "$icl" "${rooms[@]}" --depth --gaps 1 --stride 1 "${common[@]}" --out "$out/noise"
$semkey eval posed-pairs "${rooms[@]}" --gaps 5,10 --stride 2 "${common[@]}" --out "$out/low-texture"
$semkey eval posed-pairs "$cabinet" --gaps 1,2 --stride "$thin" "${common[@]}" --out "$out/cabinet"
$semkey eval posed-pairs "$redkitchen" --gaps 10,40 --stride $((12 * thin)) "${common[@]}" --out "$out/redkitchen"
$semkey eval posed-pairs "$data"/posed-photos/{desk,toy} --angles 15,30,45 --pairs $((16 / thin)) "${common[@]}" \
    --out "$out/wide"
$python benchmarks/differences.py "$out"/{noise,low-texture,cabinet,redkitchen,wide} --base bilinear
$semkey eval speed --methods "$(IFS=,; echo "${methods[*]}")" --sizes 448x448,640x480 --threads 1 "${rounds[@]}" \
    --out "$out/speed"
