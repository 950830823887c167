#!/usr/bin/env bash
# How soon a recipe scores what the published one scores: 1,000 soundscapes of the demo corpus to train on, 200 to
# validate and 200 to evaluate on, three seeds. docs/speedrun.md has the rules and the record table. Everything it
# makes is in .venv/ and speedrun/ (or the folder given). It can be interrupted and run again: what is done is kept.
#   speedrun.sh [--published] [--short] [FOLDER]
# --published trains the published recipe instead, with two seeds, for hours. --short takes the fewest clips and epochs.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")"
source scripts/lib/environment.sh
stopped() { # STATUS
    echo
    echo "Stopped. Run it again to resume." >&2
    exit "$1"
}
trap 'stopped 130' INT
trap 'stopped 143' TERM

recipe=efficient short=no top=
for word in "$@"; do
    if [ "$word" = --published ]; then
        recipe=published
    elif [ "$word" = --short ]; then
        short=yes
    elif [[ -z $word || $word == -* || -n $top ]]; then
        echo "usage: speedrun.sh [--published] [--short] [FOLDER]" >&2
        exit 2
    else
        top=$word
        if [[ $top != /* && $called_from != "$PWD" ]]; then top=$called_from/$top; fi
    fi
done
top=${top:-speedrun}
if [ -z "${GISE_PYTHON:-}" ]; then
    make_environment
    export GISE_PYTHON=$PWD/.venv/bin/python
fi
python() {
    "$GISE_PYTHON" "$@"
}
source scripts/lib/steps.sh
source scripts/lib/demo.sh

events=() train=1000 heard=200 more=()
if [ "$short" = yes ]; then
    events=(--train_clips 2 --val_clips 2 --eval_clips 2)
    train=8 heard=8 more=(--epochs 1 --set opt.batch_size=4)
fi
if [ "$recipe" = published ]; then
    cfg=cfgs_v2/demo/resnet_18_lmdb.cfg seeds=(1 2) flags=(--epochs 50 --random_clip_size 500 --val_clip_size 500)
else
    cfg=cfgs_v2/efficient/demo.cfg seeds=(1 2 3) flags=(--epochs 100 --random_clip_size 251 --val_clip_size 251)
fi

step "Soundscapes of sampled sounds, as LMDBs"
run python scripts/make_demo_corpus.py --out_folder "$top" ${events[@]+"${events[@]}"}
mix train train "$train" 1
mix val val "$heard" 2
mix eval eval "$heard" 3
for name in train val eval; do pack $name $name; done

step "Training the $recipe recipe, ${#seeds[@]} seeds"
lmdbs=$top/mixtures_lmdb
for seed in "${seeds[@]}"; do
    run python train_gise_mixtures.py --cfg_file $cfg -e "$top/$recipe/r$seed/mixup/run" --use_mixup --seed "$seed" \
        --num_workers 2 --keep 1 "${flags[@]}" --set "data.meta_root=$top/meta" \
        --set "data.train_lmdb=$lmdbs/train.lmdb" --set "data.val_lmdb=$lmdbs/val.lmdb" ${more[@]+"${more[@]}"}
done

step "Scoring each seed's best epoch, once"
run python eval_all_mixtures.py --exp_dir "$top/$recipe" --lmdb_path "$lmdbs/eval.lmdb" --best_only --num_workers 2 \
    --results_csv "$top/$recipe/results.csv"

step "Beside the published recipe's stored figures"
inputs=(docs/speedrun_published.json "$top/$recipe/results.csv")
if [ "$recipe" = published ]; then inputs=("$top/$recipe/results.csv"); fi
run python scripts/compare_recipes.py "${inputs[@]}" --save "$top/$recipe.json" --picture "$top/$recipe.png"
