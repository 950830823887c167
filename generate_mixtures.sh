#!/usr/bin/env bash
# Packs the published soundscapes into the LMDBs of "number of soundscapes v. mAP", and val and eval.
# It makes none: scripts/generate_mixtures.py mixes soundscapes.
#   generate_mixtures.sh MIXTURES_DIR LMDB_DIR
# MIXTURES_DIR holds the unpacked archives train_5k … train_50k, train, train_p2 … train_p5, val and
# eval. LMDBs that are there are left alone. Sets whose folders are missing are named at the end.
# GISE_PACK_FLAGS gives further flags to pack_mixtures_into_lmdb.py.
set -euo pipefail
source "$(dirname "$0")/scripts/lib/experiments.sh"
script=$(basename "$0")
if [ $# -ne 2 ]; then
    echo "usage: $script MIXTURES_DIR LMDB_DIR" >&2
    exit 2
fi
mixtures=$(from_here "$1")
lmdbs=$(from_here "$2")
require_words GISE_PACK_FLAGS
mapfile -d '' -t flags < <(words_of GISE_PACK_FLAGS)
missing=()

pack() { # NAME FOLDER...: the soundscapes of some folders of MIXTURES_DIR as LMDB_DIR/NAME.lmdb
    local name=$1 folders=
    shift
    if [ -e "$lmdbs/$name.lmdb" ]; then
        echo "$lmdbs/$name.lmdb is there"
        return
    fi
    for folder in "$@"; do
        if [ ! -d "$mixtures/$folder" ]; then
            echo "$name: $mixtures/$folder is missing"
            missing+=("$name")
            return
        fi
        folders+="$mixtures/$folder;"
    done
    echo "== $lmdbs/$name.lmdb"
    "$python" pack_mixtures_into_lmdb.py --mixture_dir "$folders" --lmdb_path "$lmdbs/$name.lmdb" --map_size 2e10 \
        ${flags[@]+"${flags[@]}"} || stop "packing $lmdbs/$name.lmdb failed. See above."
}

[ -d "$mixtures" ] || stop "$mixtures: no such folder of soundscapes"
[[ $mixtures != *";"* ]] || stop "$mixtures: a folder with ';' in its name cannot be packed"
pack val val
pack eval eval
for set in train_5k train_10k train_15k train_20k train_30k train_40k train_50k train; do
    pack "$set" "$set"
done
pack train_70k train train_p2
pack train_80k train train_p2 train_p3
pack train_90k train train_p2 train_p3 train_p4
pack train_100k train train_p2 train_p3 train_p4 train_p5
if [ ${#missing[@]} -gt 0 ]; then
    stop "not packed, for want of their folders: ${missing[*]}. The rest is done."
fi
