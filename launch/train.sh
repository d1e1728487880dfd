#!/usr/bin/env bash
# Trains on all GPUs of this machine and starts again by itself where a process dies:
#   launch/train.sh configs/own_data.yaml data.root=/data/images
# NUM_PROCESSES=2 launch/train.sh ... takes that many processes instead, on a machine without GPU too (run.device=cpu).
# Stop it with SIGTERM, SIGUSR1 or Ctrl-C: every process finishes its step, a checkpoint is written, preempted.txt
# appears in run.dir, and the same command goes on from there. The launcher itself then ends with 1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ -x $here/../.venv/bin/accelerate ]]; then
  PATH=$here/../.venv/bin:$PATH
fi
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || true
processes=${NUM_PROCESSES:-$((gpus > 0 ? gpus : 1))}

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1                     # else a restarted group meets the addresses of the dead one
export PET_SIGNALS_TO_HANDLE=${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGUSR1} # else SIGUSR1 kills the launcher and orphans its processes
export PET_SHUTDOWN_TIMEOUT=${PET_SHUTDOWN_TIMEOUT:-120}        # seconds to finish a step and save before SIGKILL
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec accelerate launch --config_file "$here/gpu8.yaml" --num_processes "$processes" \
  --max_restarts "${MAX_RESTARTS:-3}" -m dualview train "$@"
