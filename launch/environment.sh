# Sourced by quickstart.sh and test.sh: goes to the repository root, makes .venv once, installs dualview into it.
# Afterwards `python`, `dualview` and `accelerate` are those of .venv. PYTHON=/path/to/python chooses another Python.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "error: $1" >&2
  exit 1
}

new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    if new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "dualview needs Python 3.11 or newer; found: $(${PYTHON:-python3} --version 2>&1 | head -n 1). Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

install_dualview() {
  local python wanted
  wanted=$(cat pyproject.toml launch/environment.sh | cksum)
  if [[ -f .venv/installed && $(cat .venv/installed) == "$wanted" ]]; then
    return
  fi
  if [[ ! -x .venv/bin/python ]] || ! new_enough .venv/bin/python; then
    python=$(find_python) || exit 1
    echo "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv >/tmp/dualview-venv.$$ 2>&1 || fail "python -m venv failed: $(tail -n 1 /tmp/dualview-venv.$$) (on Debian and Ubuntu: apt install python3-venv)"
    rm -f /tmp/dualview-venv.$$
  fi
  echo "installing dualview and what it needs into .venv (some minutes, once)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" || fail "the installation failed, see pip's message above; is the package registry in reach?"
  echo "$wanted" >.venv/installed
}

install_dualview
export PATH="$PWD/.venv/bin:$PATH"
