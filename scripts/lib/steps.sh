#!/usr/bin/env bash
# How long scripts tell what they do. Sourced by quickstart.sh and reproduce_in_miniature.sh.

begun=$SECONDS

step() { # TITLE: a heading, with the minutes and seconds so far
    printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
}

run() { # COMMAND...: print it as it could be typed, and run it
    printf '$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}
