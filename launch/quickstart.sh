#!/usr/bin/env bash
# From a fresh clone to a trained network: installs into .venv, trains on phantoms with two CPU processes,
# and prints test AUROC per finding and availability. Needs Python 3.11 or newer and the package registry.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run_dir=runs/quickstart
number=1
while [[ -e $run_dir ]]; do
  number=$((number + 1))
  run_dir=runs/quickstart-$number
done

echo "training on phantoms with 2 processes, into $run_dir"
export TORCH_CPP_LOG_LEVEL=ERROR # without DDP's advice to drop find_unused_parameters, which routing needs
accelerate launch --config_file launch/cpu2.yaml -m dualview train configs/quickstart.yaml run.dir="$run_dir"

cat <<EOF

What to expect: near 1 where a view shows the finding, near 0.5 where no view does, and for Cardiomegaly,
which needs both views, 0.67 at best from one of them (docs/phantom.md).

Next
  your data        one CSV row per image; copy configs/own_data.yaml and edit it, then
                   .venv/bin/dualview train configs/own_data.yaml
  your GPUs        .venv/bin/accelerate launch --config_file launch/gpu4.yaml -m dualview train configs/own_data.yaml
  the wandb run    .venv/bin/wandb leet $run_dir/wandb/latest-run    reads it here
                   .venv/bin/wandb sync $run_dir/wandb/offline-run-* sends it to your account
EOF
