#!/usr/bin/env bash
# Number of soundscapes v. mAP: ResNet-18 on 5,000 to 100,000 soundscapes, 4 GPUs.
# GISE_TRAIN_SETS chooses among the training sets. The rest: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"

sets=${GISE_TRAIN_SETS:-train_5k train_10k train_15k train_20k train_30k train_40k train_50k train train_70k train_80k
    train_90k train_100k}
for set in $sets; do
    [ -e "${data}mixtures_lmdb/$set.lmdb" ] ||
        stop "${data}mixtures_lmdb/$set.lmdb is missing. Pack it with generate_mixtures.sh, or choose with GISE_TRAIN_SETS"
done
use_gpus 4
folder=$experiment/$run/mixup/resnet_18_lmdb_adam_64x4_adam_mixers
for set in $sets; do
    run_folder=$folder/$set train train_all_mixtures.py cfgs_v2/gise_mixtures_60k/resnet_18_lmdb.cfg "$folder" \
        --epochs 50 --use_mixup --prefetch_factor 4 --lmdbs_list "${data}mixtures_lmdb/$set.lmdb"
done
