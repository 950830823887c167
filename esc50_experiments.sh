#!/usr/bin/env bash
# ESC-50: ResNet-18 and EfficientNet-B1, fine-tuned, on each of the five folds, one GPU, in 16 bits.
# The score is the mean over folds and runs of each run's best validation accuracy
# (scripts/summarise_results.py). With GISE_PROTOCOL=held_out, the next fold validates, and the best checkpoint of each
# run is scored on the fold that it has not seen, into EXPERIMENT_DIR_held_out/r<RUN_INDEX>/results.csv. Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"
choose_protocol

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
if [ ${#protocol_flags[@]} -gt 0 ]; then
    table=$experiment/$run/results.csv
    "$python" eval_gise_mixtures.py --exp_dir "$experiment/$run" --best_only --lbl_map "${data}esc50/meta/lbl_map.json" \
        --lmdb_path "${data}esc50/lmdbs/esc50.lmdb" --results_csv "$table" --num_workers "${GISE_NUM_WORKERS:-6}"
    "$python" scripts/summarise_results.py "$table" --out_dir "$experiment/$run/summary"
fi
