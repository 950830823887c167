#!/usr/bin/env bash
# Networks of events on 60,000 soundscapes, one GPU: ResNet-18 and EfficientNet-B1 in 16 bits, and the recipe of
# docs/recipe.md. GISE_NETWORKS names some of them, such as "resnet_18 regnetx_002".
# Environment variables: scripts/lib/experiments.sh.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
begin "$0" "$@"

all="resnet_18 efficientnet-b1 regnetx_002"
networks=${GISE_NETWORKS:-$all}
for network in $networks; do
    [[ " $all " == *" $network "* ]] || stop "GISE_NETWORKS has '$network'. Some of '$all' were expected."
done
use_gpus 1
for network in $networks; do
    cfg=${network}_lmdb precision=16-mixed
    if [ "$network" = regnetx_002 ]; then cfg=$network precision=32; fi
    train train_gise_mixtures.py "cfgs_v2/events/$cfg.cfg" "$experiment/$run/mixup/${network}_events" \
        --epochs 50 --random_clip_size 501 --val_clip_size 501 --precision "$precision"
done
