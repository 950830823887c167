#!/usr/bin/env bash
# What long scripts share: where they run, what they tell, how they stop. Sourced first, by quickstart.sh,
# reproduce_in_miniature.sh and speedrun.sh.
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib/environment.sh
begun=$SECONDS
stopped() { # STATUS
    echo
    echo "Stopped. Run it again to resume." >&2
    exit "$1"
}
trap 'stopped 130' INT
trap 'stopped 143' TERM

step() { # TITLE: a heading, with the minutes and seconds so far
    printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
}

run() { # COMMAND...: print it as it could be typed, and run it
    printf '$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

# shellcheck disable=SC2034 # the scripts use what it sets
begin_in() { # DEFAULT_FOLDER [--short] [FOLDER]: sets short (yes or no) and top, the folder of all that is made
    # Python is that of .venv, which is made, or the one that GISE_PYTHON names.
    local default=$1 word
    shift
    short=no top=
    for word in "$@"; do
        if [ "$word" = --short ]; then
            short=yes
        elif [[ -z $word || $word == -* || -n $top ]]; then
            echo "usage: $(basename "$0") [--short] [FOLDER]" >&2
            exit 2
        else
            top=$word
            if [[ $top != /* && $called_from != "$PWD" ]]; then top=$called_from/$top; fi
        fi
    done
    if [ "$short" = yes ]; then default+=_short; fi # clips of the one would stay for the other
    top=${top:-$default}
    if [ -z "${GISE_PYTHON:-}" ]; then
        make_environment
        export GISE_PYTHON=$PWD/.venv/bin/python
    fi
}

python() {
    "${GISE_PYTHON:?}" "$@"
}
