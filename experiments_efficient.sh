#!/usr/bin/env bash
# The recipe of docs/recipe.md on the paper's data, one GPU: GISE-51-Mixtures from scratch, then AudioSet, VGGSound and
# ESC-50 (five folds), each fine-tuned from that run. GISE_DATA_SETS names some of them, such as "vggsound esc50".
# Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"

folder_of() { # DATA_SET
    echo "$experiment/$1/$run/mixup/regnetx_002"
}

train_on() { # DATA_SET PYTHON_SCRIPT RUN_FOLDER FRAMES [FLAG...]: frames of 10 ms
    local cfg=cfgs_v2/efficient/$1.cfg program=$2 folder=$3 frames=$4
    shift 4
    train "$program" "$cfg" "$folder" --epochs 50 --random_clip_size "$frames" --val_clip_size "$frames" "$@"
}

mixtures=$(folder_of gise_mixtures_60k)
use_gpus 1
for data_set in ${GISE_DATA_SETS:-gise_mixtures_60k audioset vggsound esc50}; do
    folder=$(folder_of "$data_set")
    case $data_set in
    gise_mixtures_60k) train_on "$data_set" train_gise_mixtures.py "$folder" 501 ;;
    audioset) train_on "$data_set" train_gise_mixtures.py "$folder" 1001 --pretrained "$mixtures" ;;
    vggsound) train_on "$data_set" train_classifier.py "$folder" 1001 --pretrained "$mixtures" ;;
    esc50)
        for fold in 1 2 3 4 5; do
            train_on "$data_set" train_esc50_classifier.py "$folder/fold_$fold" 501 --pretrained "$mixtures" \
                --fold_index "$fold"
        done
        ;;
    *) stop "GISE_DATA_SETS has '$data_set'. gise_mixtures_60k, audioset, vggsound and esc50 were expected." ;;
    esac
done
