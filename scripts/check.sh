#!/usr/bin/env bash
# Checks that read the code and run none of it, with the tools in .venv.
#   scripts/check.sh [lint] [layout] [types] [spelling] [shell] [layers]
# Without a name, all of them. Each runs to its end. The status is 1 if any of them failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

check() { # NAME. Tools are called as modules: their own scripts name the folder that they were installed in.
    local python=.venv/bin/python
    case $1 in
        lint) "$python" -m ruff check --quiet . ;;
        layout) "$python" -m ruff format --check --quiet . ;;
        types) "$python" -m mypy --no-error-summary ;;
        spelling) "$python" -m codespell_lib . ;;
        shell) .venv/bin/shellcheck -x ./*.sh scripts/*.sh scripts/lib/*.sh benchmarks/*.sh .ci/run ;;
        layers) "$python" -c 'import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True, no_logo=True))' ;;
        *) echo "there is no such check" >&2 && return 2 ;;
    esac
}

[ $# -gt 0 ] || set -- lint layout types spelling shell layers
status=0
for name in "$@"; do
    check "$name" || { echo "check.sh: error: $name failed" >&2 && status=1; }
done
exit $status
