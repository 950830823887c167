#!/usr/bin/env bash
# Runs everything that only a GPU shows, in under eight minutes, and writes gpu.md (or the file given). It makes its own
# clips and needs no network. The status is 1 where a check failed, or there is no GPU.
#   benchmarks/on_gpu.sh [FILE.md]
# GISE_PYTHON names the interpreter. Left out: that of .venv, or else python.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${GISE_PYTHON:-$root/.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python
exec timeout --kill-after=5 480 "$python" "$root/benchmarks/on_gpu.py" --output "${1:-gpu.md}"
