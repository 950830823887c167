#!/usr/bin/env bash
# VGGSound: ResNet-18 and EfficientNet-B1, fine-tuned and from scratch, one GPU, in 16 bits.
# Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"
choose_protocol

folder_of() { # NETWORK
    echo "$experiment/$run/no_mixup/$1_lmdb_adam_64x1"
}

declare -A weights
for network in resnet_18 efficientnet-b1; do
    weights[$network]=$(start_of "$network" "$(folder_of "$network")")
done
use_gpus 1
for network in resnet_18 efficientnet-b1; do
    train train_classifier.py "cfgs_v2/vggsound/${network}_lmdb.cfg" "$(folder_of "$network")" \
        --epochs 50 --fp16 --random_clip_size 500 --val_clip_size 1000 --pretrained "${weights[$network]}"
    train train_classifier.py "cfgs_v2/vggsound/${network}_scratch_lmdb.cfg" "$(folder_of "${network}_scratch")" \
        --epochs 50 --fp16 --random_clip_size 500 --val_clip_size 1000
done
