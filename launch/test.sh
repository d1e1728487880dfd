#!/usr/bin/env bash
# Installs into .venv and runs the tests on CPU. Arguments go to pytest: launch/test.sh tests/models -x
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -m pytest "$@"
