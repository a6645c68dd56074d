#!/usr/bin/env bash
# A hybrid over a frozen backbone from nothing to its tables: weights fetched, heads trained, everything measured.
#
#   bash benchmarks/dino.sh [BACKBONE [OUT]]   BACKBONE: dinov2-small (default), dinov2-base-reg, dinov3-base, ..., or a folder
#                                              with config.json and model.safetensors
#                                              OUT: where everything goes (default runs/dino/BACKBONE); resumes there
#
# Steps, each left out where its result is there already: the weights and a VLAD vocabulary; what the features could add
# (benchmarks/probe_backbone.py); the heads (semkey train dinov2-small over BACKBONE); pairs, homographies, places, SLAM
# and speed of compact, of BACKBONE untrained and of the trained heads. DINOv3: SEMKEY_ACCEPT_LICENSE=dinov3.
#
# SEMKEY_SHARED is the folder of the development data (default ../shared), PHOTOS one with photos to train on (default
# its photos), TRAIN more options of semkey train. QUICK=1: everything as small as can be, to see that it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
backbone=${1:-dinov2-small}
name=$(basename "$backbone")
out=${2:-runs/dino/$name}
data=${SEMKEY_SHARED:-../shared}/data
photos=${PHOTOS:-$data/photos/train}
read -ra train <<<"${TRAIN:-}"
PATH="$PWD/.venv/bin:$PATH"

cabinet=$data/tum/rgbd_dataset_freiburg3_cabinet_subsampled
redkitchen=$data/7scenes/redkitchen/seq-01
sizes=448x448,640x480
gaps=(--gaps 10,20,40 --stride 4)
images=300 count=200 runs=3 rounds=() few=() frames=() stride=()
if [ -n "${QUICK:-}" ]; then
    sizes=112x112
    gaps=(--gaps 20 --stride 100)
    images=20 count=4 runs=1 rounds=(--rounds 3 --warmup 1 --no-memory) few=(--stride 12) frames=(--max-frames 12)
    stride=(--stride 25)
    train+=(--set pairs_per_epoch=8 --set data.width=128 --set data.height=128 --set data.points=64 --set data.shares.rooms=0
        --set data.shares.photos=0.8 --set data.shares.shapes=0.2 --set data.teacher=null --set validation.pairs=2
        --set validation.pictures=1 --set data.val_share=0.3
        --set stages.detector.epochs=1 --set stages.reliability.epochs=1 --set run.tensorboard=false
        --set optimizer.batch_pairs=2 --set optimizer.micro_batch=2 --set run.workers=0)
fi

mkdir -p "$out"
words=$out/words.safetensors
heads=$out/heads/$name.safetensors
if [ ! -f "$words" ]; then # the first command that needs the weights: they are fetched here
    semkey vocabulary "$backbone" "$photos" --images "$images" --out "$words"
fi
if [ ! -f "$out/probe.txt" ]; then
    python benchmarks/probe_backbone.py "$cabinet" --gap 3 "${stride[@]}" --backbone "$backbone" >"$out/probe.part"
    mv "$out/probe.part" "$out/probe.txt"
fi
if [ ! -f "$out/heads/trained" ]; then
    resume=()
    if [ -d "$out/heads" ]; then resume=(--resume); fi
    semkey train dinov2-small --set name="$name" --set model.backbone="$backbone" --set data.photos="$photos" \
        "${train[@]}" --out "$out/heads" "${resume[@]}"
    touch "$out/heads/trained"
fi

methods=compact,$backbone,$heads
semkey eval posed-pairs "$redkitchen" "${gaps[@]}" --methods "$methods" --out "$out/redkitchen"
semkey eval posed-pairs "$cabinet" --gaps 1,2,3 "${few[@]}" --methods "$methods" --out "$out/cabinet"
semkey eval homographies "$data/photos/val" --count "$count" --methods "$methods" --out "$out/homographies"
semkey eval planar "$data/planar/graf" --methods "$methods" --out "$out/planar"
places=compact,$backbone:cls,$backbone:gem,$backbone:vlad=$words,compact@own@$backbone:gem
semkey eval places "$redkitchen" "${few[@]}" --methods "$places" --out "$out/places"
semkey eval slam "$cabinet" --features compact --places "$backbone:gem" --runs "$runs" "${frames[@]}" --out "$out/slam"
semkey eval speed --methods "$methods" --sizes "$sizes" --threads 1 "${rounds[@]}" --out "$out/speed"
echo "written to $out: probe.txt, heads/report.html, and a report.html and results.json each in redkitchen, cabinet," \
    "homographies, planar, places, slam, speed"
