#!/usr/bin/env bash
# Trains on all GPUs of this machine and starts again by itself where a process dies:
#   launch/train.sh configs/own_data.yaml data.root=/data/images
# NUM_PROCESSES=2 launch/train.sh ... takes that many processes instead; on CPU with run.device=cpu.
# Stop it with SIGTERM, SIGUSR1 or Ctrl-C: every process finishes its step, a checkpoint is written, preempted.txt
# appears in run.dir, and the same command goes on from there. The launcher itself then ends with 1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/restarts.sh"
export PET_STANDALONE=1 # torch's c10d rendezvous: Accelerate's static one restarts a group on the old group's store
if [[ -x $here/../.venv/bin/accelerate ]]; then
  PATH=$here/../.venv/bin:$PATH
fi
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || true
processes=${NUM_PROCESSES:-$((gpus > 0 ? gpus : 1))}
exec accelerate launch --config_file "$here/gpu8.yaml" --num_processes "$processes" \
  --max_restarts "${MAX_RESTARTS:-3}" -m dualview train "$@"
