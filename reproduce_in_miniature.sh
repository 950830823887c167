#!/usr/bin/env bash
# Every experiment of the paper, and those of docs/recipe.md and docs/events.md, on a few clips of real sound: each
# experiment script runs to its end with its own networks and cfgs, exported weights are fine-tuned, and all results
# come into one table.
# Everything it makes is in .venv/ and miniature/ (or the folder given). It can be interrupted and run
# again: what is done is kept.
#   reproduce_in_miniature.sh [--short] [FOLDER]
# --short takes the fewest clips, frames and epochs that every script still works on, in miniature_short/.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/steps.sh"
source scripts/lib/demo.sh
begin_in miniature "$@"
corpus=$top/corpus

if [ "$short" = yes ]; then
    events=2 each=2 part=2 heard=8 classes=4 tree=1 epochs=1 batch=2 frames=32
else
    events=12 each=8 part=16 heard=32 classes=18 tree=2 epochs=2 batch=8 frames=64
fi
# events: of a class. each, part, heard: soundscapes for each 5,000, for each 10,000 over 60,000, and to validate and
# evaluate on. classes, tree: of the trees, and clips of each of them. The rest is for the training scripts.

step "Isolated events, and small trees in the other data sets' layouts"
run python scripts/make_demo_corpus.py --out_folder "$corpus" --train_clips $events --val_clips $events \
    --eval_clips $events
run python scripts/make_demo_trees.py --corpus "$corpus" --out_folder "$top/trees" --classes $classes \
    --clips $tree

step "Soundscapes, as FLAC"
mix train train $((12 * each)) 1
for number in 2 3 4 5; do
    mix train "train_p$number" $part "$number"
done
mix val val $heard 6
mix eval eval $heard 7
for thousands in 5 10 15 20 30 40 50; do # the first soundscapes of the whole set
    folder=$top/mixtures_flac/train_${thousands}k
    mkdir -p "$folder"
    for ((i = 0; i < each * thousands / 5; i++)); do
        name=$(printf 'soundscape_%06d' "$i")
        cp "$top/mixtures_flac/train/$name.flac" "$top/mixtures_flac/train/$name.txt" "$folder"
    done
done

step "LMDBs"
run ./generate_mixtures.sh "$top/mixtures_flac" "$top/mixtures_lmdb"
run python scripts/prepare_esc50.py --src_dir "$top/trees/ESC-50" --out_dir "$top/esc50" --num_workers 2
for name in balanced_train eval; do
    run python scripts/prepare_audioset.py --segments_csv "$top/trees/AudioSet/${name}_segments.csv" \
        --class_labels "$top/trees/AudioSet/class_labels_indices.csv" --clips_dir "$top/trees/AudioSet/clips/$name" \
        --name $name --out_dir "$top/audioset" --num_workers 2
done
run python scripts/prepare_vggsound.py --vggsound_csv "$top/trees/VGGSound/vggsound.csv" \
    --clips_dir "$top/trees/VGGSound/clips" --out_dir "$top/vggsound" --num_workers 2

# The paper's settings but for these: fewer epochs and frames, small batches, and as many classes as the trees have.
export GISE_DATA_ROOT=$top GISE_NUM_WORKERS=1
exp=$top/experiments
experiment() { # SCRIPT EXPERIMENT_DIR [FLAG...]
    local script=$1 folder=$2
    shift 2
    GISE_TRAIN_FLAGS="--epochs $epochs --random_clip_size $frames --val_clip_size $frames --seed 1 \
        --accumulate_grad_batches 1 --set opt.batch_size=$batch --set opt.lr=3e-4 $*"
    export GISE_TRAIN_FLAGS
    run "./$script" "$folder" 1
}
score() { # SCRIPT LABEL_MAP LMDB EXPERIMENT_DIR [FLAG...]
    local script=$1 lbl_map=$2 lmdb=$3 folder=$4
    shift 4
    run python "$script" --lbl_map "$lbl_map" --lmdb_path "$lmdb" --exp_dir "$folder/r1" --best_only --per_class \
        --results_csv "$folder/r1/results.csv" --num_workers 1 "$@"
}

step "Number of soundscapes v. mAP"
experiment experiments_all_mixtures.sh "$exp/sizes"
score eval_all_mixtures.py meta/lbl_map.json "$top/mixtures_lmdb/eval.lmdb" "$exp/sizes"

step "CNN baselines"
experiment experiments_60k_mixtures.sh "$exp/60k"
experiment experiments_60k_mixtures_v100.sh "$exp/60k"
score eval_gise_mixtures.py meta/lbl_map.json "$top/mixtures_lmdb/eval.lmdb" "$exp/60k" \
    --export_weights --export_dir "$top/exported_weights/r1"

step "AudioSet"
experiment experiments_audioset.sh "$exp/audioset" --set "model.num_classes=$classes"
experiment experiments_audioset_v100.sh "$exp/audioset" --set "model.num_classes=$classes"
for start in ft scratch; do
    score eval_gise_mixtures.py "$top/audioset/meta/lbl_map.json" "$top/audioset/lmdbs/eval.lmdb" \
        "$exp/audioset_$start" --num_timesteps 1001
done

step "VGGSound"
experiment experiments_vggsound_v100.sh "$exp/vggsound" --set "model.num_classes=$classes"
score eval_vggsound.py "$top/vggsound/meta/lbl_map.json" "$top/vggsound/lmdbs/test.lmdb" "$exp/vggsound"

step "ESC-50"
experiment esc50_experiments.sh "$exp/esc50"

step "Another recipe on all of these"
efficient() { # DATA_SET [FLAG...]
    local data_set=$1
    shift
    GISE_DATA_SETS=$data_set experiment experiments_efficient.sh "$exp/efficient" "$@"
}
efficient gise_mixtures_60k
score eval_gise_mixtures.py meta/lbl_map.json "$top/mixtures_lmdb/eval.lmdb" "$exp/efficient/gise_mixtures_60k"
efficient audioset --set "model.num_classes=$classes"
score eval_gise_mixtures.py "$top/audioset/meta/lbl_map.json" "$top/audioset/lmdbs/eval.lmdb" \
    "$exp/efficient/audioset" --num_timesteps 1001
efficient vggsound --set "model.num_classes=$classes"
score eval_vggsound.py "$top/vggsound/meta/lbl_map.json" "$top/vggsound/lmdbs/test.lmdb" "$exp/efficient/vggsound"
efficient esc50

step "Events"
experiment experiments_events.sh "$exp/events"
score eval_events.py meta/lbl_map.json "$top/mixtures_lmdb/eval.lmdb" "$exp/events"

step "One table of everything"
run python scripts/summarise_results.py "$exp/sizes/r1/results.csv" "$exp/60k/r1/results.csv" \
    "$exp/audioset_ft/r1/results.csv" "$exp/audioset_scratch/r1/results.csv" "$exp/vggsound/r1/results.csv" \
    "$exp/esc50" "$exp/efficient"/*/r1/results.csv "$exp/efficient/esc50" "$exp/events/r1/results.csv" \
    --out_dir "$top/summary"
step "Done"
