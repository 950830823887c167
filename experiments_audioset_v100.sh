#!/usr/bin/env bash
# AudioSet's balanced training set: EfficientNet-B1, fine-tuned (EXPERIMENT_DIR_ft) and from scratch
# (EXPERIMENT_DIR_scratch), one GPU, in 16 bits. Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"
choose_protocol

fine_tuned=${experiment}_ft/$run/mixup/efficientnet-b1_lmdb_adam_32x1_adam_mixers
weights=$(start_of efficientnet-b1 "$fine_tuned")
use_gpus 1
train train_gise_mixtures.py cfgs_v2/audioset/efficientnet-b1_lmdb.cfg "$fine_tuned" \
    --epochs 50 --use_mixup --fp16 --random_clip_size 1000 --pretrained "$weights"
train train_gise_mixtures.py cfgs_v2/audioset/efficientnet-b1_scratch_lmdb.cfg \
    "${experiment}_scratch/$run/mixup/efficientnet-b1_scratch_lmdb_adam_32x1_adam_mixers" \
    --epochs 50 --use_mixup --fp16 --random_clip_size 1000
