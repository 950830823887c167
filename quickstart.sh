#!/usr/bin/env bash
# The project's main job on real sound, from a fresh clone: sampled events -> soundscapes -> FLAC ->
# LMDBs -> ResNet-18 on three training-set sizes, and the recipe of docs/recipe.md on the largest -> results.csv and a
# curve. Everything it makes is in .venv/ and demo/. It can be interrupted and run again: what is done is kept.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/steps.sh"
source scripts/lib/demo.sh
make_environment
export GISE_PYTHON=$PWD/.venv/bin/python
top=demo
corpus=demo

step "Isolated events: sampled sounds of 18 classes"
run python scripts/make_demo_corpus.py --out_folder "$top"

step "Soundscapes, as FLAC"
mix train train_part1 32 1
mix train train_part2 64 2
mix train train_part3 224 3
mix val val 48 4
mix eval eval 96 5

step "LMDBs: nested training sets, validation and evaluation"
pack train_32 train_part1
pack train_96 "train_part1;train_part2"
pack train_320 "train_part1;train_part2;train_part3"
pack val val
pack eval eval

step "Training ResNet-18 on each set"
lmdbs=demo/mixtures_lmdb
run python train_all_mixtures.py --cfg_file cfgs_v2/demo/resnet_18_lmdb.cfg \
    -e demo/experiments/r1/mixup/resnet_18_lmdb --epochs 5 --use_mixup --seed 1 --num_workers 2 \
    --random_clip_size 250 --val_clip_size 250 \
    --lmdbs_list "$lmdbs/train_32.lmdb;$lmdbs/train_96.lmdb;$lmdbs/train_320.lmdb"

step "Training another recipe on the largest set"
run python train_gise_mixtures.py --cfg_file cfgs_v2/efficient/demo.cfg \
    -e demo/experiments/r1/mixup/regnetx_002/train_320 --epochs 60 --seed 1 --num_workers 2 \
    --random_clip_size 501 --val_clip_size 501 --set opt.batch_size=16

step "Scoring each run's best checkpoint, and untrained networks"
run python eval_all_mixtures.py --exp_dir demo/experiments/r1 --lbl_map demo/meta/lbl_map.json \
    --lmdb_path "$lmdbs/eval.lmdb" --results_csv demo/results.csv --best_only --untrained \
    --export_weights --export_dir demo/exported_weights --num_workers 2

step "Table and pictures"
run python scripts/summarise_results.py demo/results.csv --out_dir demo/summary

step "Done. Every file that was made"
for folder in demo/isolated_events/* demo/noises/* demo/mixtures/* demo/mixtures_flac/*; do
    echo "$folder/: $(find "$folder" -type f | wc -l) files"
done
find demo -type f -not -path 'demo/isolated_events/*' -not -path 'demo/noises/*' -not -path 'demo/mixtures/*' \
    -not -path 'demo/mixtures_flac/*' | sort
best=$(find demo/exported_weights -name '*.pth' | sort -t= -k2 -n | tail -n 1)
echo
echo "The best weights: $best"
echo "The curve: demo/summary/soundscapes_vs_map_demo.png"
