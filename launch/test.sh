#!/usr/bin/env bash
# Installs into .venv and runs the tests on CPU, two files at a time (WORKERS=1: one). Arguments go to pytest:
#   launch/test.sh tests/models -x
# What this machine lacks for some tests (a browser, the real X-rays, network namespaces, a GPU) is said at the end,
# with the command that would include them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -m pytest --numprocesses "${WORKERS:-2}" --dist loadfile "$@"
