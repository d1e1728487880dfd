# Sourced by train.sh and slurm.sbatch: what torch's launcher needs to stop cleanly and to start again.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else a restarted group meets the addresses of processes that are gone
export PET_SIGNALS_TO_HANDLE=${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGUSR1} # else SIGUSR1 ends the launcher only
export PET_SHUTDOWN_TIMEOUT=${PET_SHUTDOWN_TIMEOUT:-120}                      # seconds to finish a step and save it
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
