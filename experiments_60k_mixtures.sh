#!/usr/bin/env bash
# CNN baselines on 60,000 soundscapes: the networks that were trained on 4 GPUs.
# Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"

use_gpus 4
for network in resnet_18 resnet_34 cifar_resnet_44 cifar_resnet_56; do
    train train_gise_mixtures.py "cfgs_v2/gise_mixtures_60k/${network}_lmdb.cfg" \
        "$experiment/$run/mixup/${network}_lmdb_adam_64x4_adam_mixers" --epochs 50 --use_mixup
done
