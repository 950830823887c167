#!/usr/bin/env bash
# CNN baselines on 60,000 soundscapes: the networks that were trained on one GPU, in 16 bits.
# Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"

use_gpus 1
for network_and_batch in resnet_50:64 efficientnet-b0:128 efficientnet-b1:64 densenet_121:64; do
    network=${network_and_batch%:*}
    train train_gise_mixtures.py "cfgs_v2/gise_mixtures_60k/${network}_lmdb.cfg" \
        "$experiment/$run/mixup/${network}_lmdb_adam_${network_and_batch#*:}x1_adam_mixers" \
        --epochs 50 --use_mixup --fp16
done
