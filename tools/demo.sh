#!/bin/sh
# The demo, step by step: every command is one that you would type for your own videos. Run it with `make demo`.
set -eu
out=shards/demo
runs=runs/demo
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc 2> /dev/null || echo 2)}"
# Waiting threads sleep instead of spinning: on a machine with other work to do, training is several times faster.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

step() { printf '\n== %s\n' "$1"; }
show() { printf '$ %s\n' "$*"; "$@"; }

step "1/5  A video: a walk through a small furnished house, rendered here"
show python tools/make_demo_video.py runs/demo-input/house-walk.mp4

step "2/5  Mine pairs of views with 50-75 % overlap and pack them in shards"
rm -rf "$out"
show mimic-shard build --source video runs/demo-input --out "$out" -o "licence=rendered here from Apache-2.0 and CC0 textures"

step "3/5  Check the shards and look at some pairs: matching patches have the same colour"
show mimic-shard verify "$out" --deep
show mimic-shard show "$out" --num 6 --out "$out/pairs.png"

step "4/5  Pretrain a small CroCo on the streamed shards"
rm -rf "$runs"
show accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    train/pretrain.py train/configs/demo.toml --data "$out" --output "$runs"

step "5/5  Done"
cat << TEXT
  pairs            $out/pairs.png
  shards           $out            (mimic-shard info $out)
  reconstructions  $runs/reconstructions.png
  loss curve       $runs/log.jsonl

Next, with your own videos:
  . .venv/bin/activate
  mimic-shard build --source video PATH/TO/VIDEOS --out shards/mine
  accelerate launch train/pretrain.py train/configs/croco_vitb16.toml --data shards/mine
  (with fewer than 4096 pairs, add: --set data.global_batch=256)
TEXT
