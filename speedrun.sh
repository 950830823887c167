#!/usr/bin/env bash
# How soon a recipe scores what the published one scores: 1,000 soundscapes of the demo corpus to train on, 200 to
# validate and 200 to evaluate on. docs/speedrun.md has the rules and the record table. Everything it makes is in .venv/
# and speedrun/ (or the folder given). It can be interrupted and run again: what is done is kept.
#   speedrun.sh [--short] [FOLDER]
# --short takes the fewest clips and epochs, in speedrun_short/. GISE_RECIPE chooses the recipe: efficient (three seeds),
# endless (the same, with new soundscapes in every epoch) or published (two seeds, for hours). GISE_EPOCHS trains for
# another number of epochs, in a folder of its own.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/steps.sh"
source scripts/lib/demo.sh
recipe=${GISE_RECIPE:-efficient}
cfg=cfgs_v2/efficient/demo.cfg seeds=(1 2 3) epochs=40 flags=(--random_clip_size 501 --val_clip_size 501)
case $recipe in
efficient | endless) ;;
published)
    cfg=cfgs_v2/demo/resnet_18_lmdb.cfg seeds=(1 2) epochs=50
    flags=(--use_mixup --random_clip_size 500 --val_clip_size 500)
    ;;
*)
    echo "speedrun.sh: error: GISE_RECIPE is '$recipe'. efficient, endless or published was expected." >&2
    exit 1
    ;;
esac
runs=$recipe${GISE_EPOCHS:+_${GISE_EPOCHS}_epochs}
begin_in speedrun "$@"
corpus=$top

events=() train=1000 heard=200
if [ "$short" = yes ]; then
    events=(--train_clips 2 --val_clips 2 --eval_clips 2)
    train=8 heard=8 epochs=1 flags+=(--set opt.batch_size=4)
fi

step "Soundscapes of sampled sounds, as LMDBs"
run python scripts/make_demo_corpus.py --out_folder "$top" ${events[@]+"${events[@]}"}
mix train train $train 1
mix val val $heard 2
mix eval eval $heard 3
for name in train val eval; do pack $name $name; done

step "Training the $recipe recipe, ${#seeds[@]} seeds"
lmdbs=$top/mixtures_lmdb
sounds=(--set "data.train_lmdb=$lmdbs/train.lmdb")
if [ "$recipe" = endless ]; then
    sounds=(--set data.train_lmdb=None --set "data.soundscapes=$train" --set "data.backgrounds=$top/noises"
        --set "data.isolated_events=$top/isolated_events/train")
fi
for seed in "${seeds[@]}"; do
    run python train_gise_mixtures.py --cfg_file $cfg -e "$top/$runs/r$seed/mixup/run" --seed "$seed" \
        --epochs "${GISE_EPOCHS:-$epochs}" --num_workers 2 --keep 1 --set "data.meta_root=$top/meta" \
        --set "data.val_lmdb=$lmdbs/val.lmdb" "${sounds[@]}" "${flags[@]}"
done

step "Scoring each seed's best epoch, once"
run python eval_all_mixtures.py --exp_dir "$top/$runs" --lmdb_path "$lmdbs/eval.lmdb" --best_only --num_workers 2 \
    --lbl_map "$top/meta/lbl_map.json" --results_csv "$top/$runs/results.csv"

step "Beside the stored figures, those of docs/speedrun.md"
run python scripts/compare_recipes.py docs/speedrun.json "$top/$runs/results.csv" --note "${runs//_/ }, now" \
    --save "$top/$runs.json" --picture "$top/$runs.png"
