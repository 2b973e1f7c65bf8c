#!/usr/bin/env bash
# What to run first on a machine with a GPU: see `tests/gpu/check.sh --help`. The wheels that it is given are
# installed into a folder of its own; what this Python has stays as it is.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/check.py" "$@"
