#!/usr/bin/env bash
# Installs into .venv and runs the tests on CPU, two files at a time (WORKERS=1: one). Arguments go to pytest:
#   launch/test.sh tests/models -x
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -m pytest --numprocesses "${WORKERS:-2}" --dist loadfile "$@"
