#!/usr/bin/env bash
# AudioSet's balanced training set: ResNet-18, fine-tuned (EXPERIMENT_DIR_ft) and from scratch
# (EXPERIMENT_DIR_scratch), 4 GPUs. Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"
choose_protocol

fine_tuned=${experiment}_ft/$run/mixup/resnet_18_lmdb_adam_32x4_adam_mixers
weights=$(start_of resnet_18 "$fine_tuned")
use_gpus 4
train train_gise_mixtures.py cfgs_v2/audioset/resnet_18_lmdb.cfg "$fine_tuned" \
    --epochs 50 --use_mixup --random_clip_size 1000 --pretrained "$weights"
train train_gise_mixtures.py cfgs_v2/audioset/resnet_18_scratch_lmdb.cfg \
    "${experiment}_scratch/$run/mixup/resnet_18_scratch_lmdb_adam_32x4_adam_mixers" \
    --epochs 50 --use_mixup --random_clip_size 1000
