#!/usr/bin/env bash
# Train the portrait networks on one GPU, or a CPU, without Ray: bash tools/gpu_train.sh --faces packed.npz --minutes 10
# docs/training.md, "On one lent GPU", describes it. PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec "$python" tools/gpu_train.py train "$@"
