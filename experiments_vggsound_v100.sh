#!/usr/bin/env bash
# VGGSound: ResNet-18 and EfficientNet-B1, fine-tuned and from scratch, one GPU, in 16 bits.
# Environment variables: scripts/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/experiments.sh"
begin "$0" "$@"

use_gpus 1
for network in resnet_18 efficientnet-b1; do
    weights=$(weights_of "$network")
    train train_classifier.py "cfgs_v2/vggsound/${network}_lmdb.cfg" \
        "$experiment/$run/no_mixup/${network}_lmdb_adam_64x1" \
        --epochs 50 --fp16 --random_clip_size 500 --val_clip_size 1000 --pretrained "$weights"
    train train_classifier.py "cfgs_v2/vggsound/${network}_scratch_lmdb.cfg" \
        "$experiment/$run/no_mixup/${network}_scratch_lmdb_adam_64x1" \
        --epochs 50 --fp16 --random_clip_size 500 --val_clip_size 1000
done
