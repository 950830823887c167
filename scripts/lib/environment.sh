#!/usr/bin/env bash
# Makes or reuses .venv and installs what the project needs. Sourced by steps.sh and run_tests.sh:
#   make_environment            the system's packages, .venv, requirements.txt, requirements-demo.txt, the project
#   make_environment --dev      and requirements-dev.txt, and where it can be a browser for the tests of pages
# PYTHON names another interpreter than the first fitting one on the PATH.

SUPPORTED="3.10, 3.11, 3.12, 3.13 or 3.14"

fits() { # PYTHON: whether it runs and is of a supported version
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

choose_python() { # print the interpreter to use, or nothing
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.13 python3.10 python3.14; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
        if [ "$candidate" = "${PYTHON:-}" ]; then
            echo "PYTHON=$PYTHON does not run, or is not Python $SUPPORTED" >&2
            return 1
        fi
    done
}

missing_packages() { # PYTHON: print the names of the system's packages that are missing
    local python=$1 version
    if [ -z "$python" ]; then
        echo python3 python3-dev python3-venv
    else
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo "$version-dev"
        "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$version-venv"
    fi
    command -v c++ >/dev/null || echo g++
    command -v sox >/dev/null || echo sox
    [ -e /usr/include/sox.h ] || echo libsox-dev
}

install_packages() { # PACKAGE...: with apt, as root or through sudo. Otherwise say what to run.
    local install="apt-get update && apt-get install -y $*"
    if ! command -v apt-get >/dev/null; then
        echo "These packages are missing (by their Debian names): $*. Install them and run this again." >&2
        return 1
    fi
    if [ "$(id -u)" = 0 ]; then
        echo "Installing $*"
        DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -q && apt-get install -y -q $*"
    elif command -v sudo >/dev/null; then
        echo "Installing $* (with sudo)"
        sudo sh -c "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q $*"
    else
        echo "These packages are missing: $*. As root, run this, and then the script again:" >&2
        echo "  $install" >&2
        return 1
    fi
}

install_browser() { # for the tests of pages, which are skipped without it. It asks for no password.
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
        install_packages chromium chromium-driver && return
    fi
    echo "The tests of pages are skipped: they need chromium and chromium-driver, as Debian has them"
}

pip_install_once() { # STAMP FILE PIP_ARGUMENT...: install what FILE describes unless it was before
    local stamp=.venv/$1 file=$2 sum
    shift 2
    sum=$(.venv/bin/python -V)-$(sha256sum <"$file")
    [ "$1" != --editable ] || sum+=$PWD # where it refers to: a folder may move
    if [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then
        return
    fi
    echo "Installing $file into .venv"
    .venv/bin/python -m pip install --disable-pip-version-check "$@" || return 1
    echo "$sum" >"$stamp"
}

install_project() { # the folder itself, with setuptools as PyTorch brought it or, without it, as pip fetches it
    local isolation=()
    if .venv/bin/python -c 'import setuptools as s; assert int(s.__version__.split(".")[0]) >= 77' 2>/dev/null; then
        isolation=(--no-build-isolation)
    fi
    pip_install_once .project pyproject.toml --editable . --no-deps ${isolation[@]+"${isolation[@]}"}
}

make_environment() {
    local python packages
    python=$(choose_python) || return 1
    packages=$(missing_packages "$python" | tr '\n' ' ')
    if [ -n "${packages// /}" ]; then
        # shellcheck disable=SC2086 # a list of package names
        install_packages $packages || return 1
        python=$(choose_python)
    fi
    if [ -z "$python" ]; then
        echo "No Python $SUPPORTED was found. Set PYTHON to one." >&2
        return 1
    fi
    if ! fits .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        echo "Making .venv with $("$python" -V)"
        "$python" -m venv --clear .venv || return 1
    fi
    pip_install_once .requirements requirements.txt -r requirements.txt || return 1
    pip_install_once .requirements-demo requirements-demo.txt -r requirements-demo.txt --no-deps || return 1
    if [ "${1:-}" = --dev ]; then
        install_browser
        pip_install_once .requirements-dev requirements-dev.txt -r requirements-dev.txt || return 1
    fi
    install_project
}
