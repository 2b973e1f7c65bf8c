#!/usr/bin/env bash
# Pseudo-labels of many photos as a SLURM job array; a task a share, each on its own, any of them may be stopped and given again.
#
#   shic render                                   # once: template.h5 -> views.h5, so that no task renders them again
#   id=$(sbatch --parsable array.sh photos/)      # -> pgt.part-1-of-64.h5 to pgt.part-64-of-64.h5
#   sbatch --dependency=afterany:$id --wrap 'shic join pgt.part-*-of-64.h5'   # -> pgt.h5; names a part that is missing
#   sbatch --array=17 array.sh photos/            # what is missing, again
#
# Another stage is another line at the end: features, synth and predict take --shard too.
#SBATCH --job-name=shic
#SBATCH --array=1-64
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --gres=gpu:1
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
shards=64 # not SLURM_ARRAY_TASK_COUNT, which is 1 when one task is given again

shic pseudo-gt "${1:-photos/}" --views views.h5 -o pgt.h5 --shard "$SLURM_ARRAY_TASK_ID/$shards"
