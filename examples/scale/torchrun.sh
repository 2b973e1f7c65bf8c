#!/usr/bin/env bash
# One machine with several GPUs: a process for each. The same line goes on where a run was stopped.
# On several machines: srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint "$HOST:29500" -m shic_cli ...
set -euo pipefail
gpus=${1:-8}

torchrun --nproc-per-node "$gpus" -m shic_cli pseudo-gt photos/ -o pgt.h5
torchrun --nproc-per-node "$gpus" -m shic_cli synth -o synth.h5
torchrun --nproc-per-node "$gpus" -m shic_cli train
torchrun --nproc-per-node "$gpus" -m shic_cli predict photos/ -o photos.maps.h5 --no-pictures
