#!/usr/bin/env bash
# Makes the virtual environment in the folder named by the first argument, or brings it up to date.
# Wants Python 3.11 or newer. Where Debian or Ubuntu lack a package it is installed when we are root, and otherwise one
# sentence says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: tools/make_venv.sh FOLDER}
log=$venv/setup.log

stop() { echo "setup: $*" >&2; exit 1; }

apt_install() {
    command -v apt-get >/dev/null || stop "the system lacks $*; install it with your package manager, then run this again."
    [ "$(id -u)" = 0 ] || stop "the system lacks $*; run 'sudo apt-get install $*', then run this again."
    echo "setup: installing $* with apt-get"
    exec 9>/tmp/difface-apt.lock && flock 9
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
    exec 9>&-
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if command -v "$name" >/dev/null && new_enough "$name"; then command -v "$name"; return; fi
    done
    return 1
}

# A venv cut short leaves a Python without pip: start again.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! python=$(find_python); then
        apt_install python3 python3-venv
        python=$(find_python) || stop "Python 3.11 or newer is wanted, this system has $(python3 --version); install one, then run 'make PYTHON=/path/to/python'."
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    echo "setup: $("$python" --version) into $venv"
    "$python" -m venv --clear "$venv"
fi

echo "setup: installing the packages of constraints.txt (several GB the first time; details in $log)"
# Python compiles what is imported; compiling all of it first takes a minute longer.
wanted=(-c constraints.txt -e '.[test,dev,evaluate,sign,archive]')
pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile)
# uv needs a third of pip's time. Whatever it can not do is left to pip, and so are the messages of what fails.
if ! { "${pip[@]}" 'uv>=0.9,<1' && "$venv/bin/python" tools/uv_install.py "${wanted[@]}"; } >"$log" 2>&1 \
    && ! "${pip[@]}" "${wanted[@]}" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    stop "pip could not install the packages; the lines above are the end of $log."
fi

# OpenCV's wheel expects two libraries that a bare Debian or Ubuntu does not have.
if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
    apt_install libgl1 libglib2.0-0
    "$venv/bin/python" -c 'import cv2' || stop "OpenCV still does not load; the line above says what it misses."
fi
