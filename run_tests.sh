#!/usr/bin/env bash
# Makes or reuses .venv, installs what the tests need, checks the code and runs the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/lib/environment.sh
make_environment --dev
scripts/check.sh
.venv/bin/python -m pytest "$@"
