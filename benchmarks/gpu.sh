#!/bin/sh
# Everything that needs a GPU, on a host with nothing but the packages that benchmarks/gpu.py lists.
cd "$(dirname "$0")/.." || exit 1
PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
