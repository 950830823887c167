#!/usr/bin/env bash
# The demo corpus: soundscapes, FLAC, LMDBs. Sourced, after steps.sh, by scripts that set $corpus, the folder that
# make_demo_corpus.py made, and $top, that of the rest. What is there already stays.

mix() { # SPLIT NAME COUNT SEED: soundscapes of a split's events, as FLAC
    local top=${top:?} corpus=${corpus:?}
    run python scripts/generate_mixtures.py --fg_path "$corpus/isolated_events/$1" --bg_path "$corpus/noises" \
        --out_folder "$top/mixtures/$2" --num_soundscapes "$3" --lbl_map "$corpus/meta/lbl_map.json" \
        --seed "$4" --num_workers 2
    run python scripts/wav2flac.py --src_dir "$top/mixtures/$2" --tgt_dir "$top/mixtures_flac/$2" \
        --move_txt --move_jams --num_workers 2
}

pack() { # NAME PART[;PART...]: an LMDB of mixtures
    local top=${top:?}
    local lmdb=$top/mixtures_lmdb/$1.lmdb folders=$top/mixtures_flac/${2//;/;$top/mixtures_flac/}
    if [ -e "$lmdb" ]; then
        echo "$lmdb is there"
    else
        run python pack_mixtures_into_lmdb.py --mixture_dir "$folders" --lmdb_path "$lmdb"
    fi
}
