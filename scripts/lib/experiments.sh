#!/usr/bin/env bash
# What the experiment scripts share. They source it, and are called
#   SCRIPT EXPERIMENT_DIR RUN_INDEX
# and read these environment variables:
#   GISE_GPUS         GPU indices such as "0, 1" (as many as were published, or as there are)
#   GISE_NUM_WORKERS  loader processes for each GPU (6)
#   GISE_DATA_ROOT    folder of mixtures_lmdb/, audioset/, vggsound/, esc50/ and exported_weights/ (the
#                     one that the scripts are in)
#   GISE_WEIGHTS_DIR  folder of exported weights to fine-tune ($GISE_DATA_ROOT/exported_weights)
#   GISE_PROTOCOL     held_out: validate on clips held out of training, in folders of their own. Of scripts that call
#                     choose_protocol (published)
#   GISE_TRAIN_FLAGS  further flags for the training script, quoted as in a shell
#   GISE_PYTHON       interpreter (.venv's, or else python)

called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

from_here() { # PATH: print it as it is called from the scripts' folder
    if [[ $1 == /* || $called_from == "$PWD" ]]; then
        printf '%s' "$1"
    else
        printf '%s' "$called_from/$1"
    fi
}

python=${GISE_PYTHON:-python}
if [[ $python == */* ]]; then
    python=$(from_here "$python")
elif [ -z "${GISE_PYTHON:-}" ] && [ -x .venv/bin/python ]; then
    python=.venv/bin/python
fi
if [ -n "${GISE_DATA_ROOT:-}" ]; then
    GISE_DATA_ROOT=$(from_here "$GISE_DATA_ROOT")
    export GISE_DATA_ROOT
fi
data=${GISE_DATA_ROOT:+${GISE_DATA_ROOT%/}/} # before the name of a data set
gpu_flags=() protocol_flags=()

stop() { # MESSAGE...: on one line, to standard error
    echo "${script:-experiment}: error: $*" >&2
    exit 1
}

# shellcheck disable=SC2034 # the scripts use what it sets
begin() { # SCRIPT [EXPERIMENT_DIR RUN_INDEX]: sets script, experiment and run
    script=$(basename "$1")
    if [ $# -ne 3 ] || [ -z "$2" ]; then
        echo "usage: $script EXPERIMENT_DIR RUN_INDEX" >&2
        exit 2
    fi
    [[ $3 =~ ^[0-9]+$ ]] || stop "RUN_INDEX is '$3'. A number such as 1 was expected."
    experiment=$(from_here "${2%/}")
    run=r$3
}

choose_protocol() { # after begin: sets protocol_flags, and another experiment folder where clips are held out
    case ${GISE_PROTOCOL:-published} in
    published) ;;
    held_out)
        protocol_flags=(--protocol held_out)
        experiment+=_held_out
        ;;
    *) stop "GISE_PROTOCOL is '$GISE_PROTOCOL'. published or held_out was expected." ;;
    esac
}

use_gpus() { # NUMBER: sets gpu_flags for the published number of GPUs, or for those there are
    local published=$1 present used=0 list='' index accumulate=1
    present=$("$python" -c 'import torch; print(torch.cuda.device_count())' 2>/dev/null) ||
        stop "$python cannot import torch. Install requirements.txt, or name another interpreter with GISE_PYTHON."
    if [ -n "${GISE_GPUS:-}" ]; then
        [[ $GISE_GPUS =~ ^[0-9]+(\ *,\ *[0-9]+)*$ ]] || stop "GISE_GPUS is '$GISE_GPUS'. Indices such as '0, 1' were expected."
        list=$GISE_GPUS
        for index in ${GISE_GPUS//,/ }; do
            [ "$index" -ge "$present" ] || used=$((used + 1))
        done
        if [ "$present" -gt 0 ] && [ "$used" -lt "$(wc -w <<<"${GISE_GPUS//,/ }")" ]; then
            stop "GISE_GPUS is '$GISE_GPUS', but there are $present GPU(s) here, counted from 0"
        fi
    else
        used=$((present < published ? present : published))
        list=0
        for ((index = 1; index < used; index++)); do list+=", $index"; done
    fi
    if [ "$present" -eq 0 ]; then
        used=1
        echo "$script: no GPU here, training on the CPU. Made for $published GPU(s)."
    elif [ "$used" -ne "$published" ]; then
        echo "$script: training on $used GPU(s) ($list). Made for $published."
    fi
    if [ "$used" -lt "$published" ] && [ $((published % used)) -eq 0 ]; then
        accumulate=$((published / used))
        echo "$script: --accumulate_grad_batches $accumulate makes a step of as many clips as published"
    elif [ "$used" -ne "$published" ]; then
        echo "$script: a step is of $used batches instead of $published"
    fi
    gpu_flags=(--gpus "$list" --accumulate_grad_batches "$accumulate" --num_workers "${GISE_NUM_WORKERS:-6}")
}

words_of() { # NAME: print the words of the variable of that name, quoted as in a shell, each ended by a null byte
    xargs -r printf '%s\0' <<<"${!1:-}"
}

require_words() { # NAME: stop where the quotes of that variable do not match
    words_of "$1" >/dev/null 2>&1 || stop "$1 is \"${!1}\". Its quotes do not match."
}

train() { # PYTHON_SCRIPT CFG EXPDIR [FLAG...]: one training run, its output also in RUN.log
    # RUN is EXPDIR, or what $run_folder names where a script makes a folder in EXPDIR.
    local program=$1 cfg=$2 expdir=$3 folder=${run_folder:-$3} status=0 further=()
    shift 3
    require_words GISE_TRAIN_FLAGS
    mapfile -d '' -t further < <(words_of GISE_TRAIN_FLAGS)
    echo "== $script: $folder"
    mkdir -p "$(dirname "$folder")"
    "$python" "$program" --cfg_file "$cfg" -e "$expdir" "${gpu_flags[@]}" \
        ${protocol_flags[@]+"${protocol_flags[@]}"} "$@" \
        ${further[@]+"${further[@]}"} 2>&1 | tee -i -a "$folder.log" || status=$?
    if [ "$status" -eq 130 ] || [ "$status" -eq 143 ] || [ "$status" -eq 138 ]; then # SIGINT, SIGTERM, SIGUSR1
        echo "$script: interrupted in $folder. The same command resumes it." >&2
        exit "$status"
    elif [ "$status" -ne 0 ]; then
        echo "$script: error: the run $folder failed with status $status. Its log: $folder.log" >&2
        exit "$status"
    fi
}

start_of() { # NETWORK FOLDER: print the weights that the run in FOLDER began with, or else those to begin with
    if [ -f "$2/run.json" ]; then
        "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["cfg"]["model"]["pretrained"])' \
            "$2/run.json" 2>/dev/null && return
    fi
    weights_of "$1"
}

weights_of() { # NETWORK: print the file of its exported weights, those with the best mAP where there are several
    local network=$1 top folder file best=
    top=${data}exported_weights
    if [ -n "${GISE_WEIGHTS_DIR:-}" ]; then top=$(from_here "$GISE_WEIGHTS_DIR"); fi
    for folder in "$top/$run" "$top"; do
        if [ -f "$folder/$network.pth" ]; then
            echo "$folder/$network.pth"
            return
        fi
        # As exported from the 60k runs: <group>/<run>/mAP=…_num_classes=51.pth, perhaps below r<RUN>/.
        for file in "$folder"/{,r[0-9]*/}*/{"$network","$network"_lmdb*}/mAP=[01].*_num_classes=51.pth; do
            if [[ -f $file && (-z $best || ${file##*/} > ${best##*/}) ]]; then best=$file; fi
        done
        if [ -n "$best" ]; then
            echo "$best"
            return
        fi
    done
    stop "no exported weights of $network in $top. Export them with eval_gise_mixtures.py --export_weights," \
        "or name their folder with GISE_WEIGHTS_DIR."
}
