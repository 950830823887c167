#!/usr/bin/env bash
# ESC-50: ResNet-18 and EfficientNet-B1, fine-tuned, on each of the five folds, one GPU, in 16 bits.
# The score is the mean over folds and runs of each run's best validation accuracy
# (scripts/summarise_results.py). Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"

folder_of() { # NETWORK FOLD
    echo "$experiment/$run/mixup/$1_lmdb_adam_64x1_adam_mixers/fold_$2"
}

declare -A weights
for network in resnet_18 efficientnet-b1; do
    for fold in 1 2 3 4 5; do
        weights[$network,$fold]=$(start_of "$network" "$(folder_of "$network" "$fold")")
    done
done
use_gpus 1
for network in resnet_18 efficientnet-b1; do
    for fold in 1 2 3 4 5; do
        train train_esc50_classifier.py "cfgs_v2/esc50/${network}_lmdb.cfg" "$(folder_of "$network" "$fold")" \
            --epochs 50 --fp16 --pretrained "${weights[$network,$fold]}" --fold_index "$fold"
    done
done
