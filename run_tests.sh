#!/usr/bin/env bash
# Makes or reuses .venv, installs what the tests need, and runs them. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/lib/environment.sh
make_environment --dev
.venv/bin/ruff check -q .
.venv/bin/python -m pytest "$@"
