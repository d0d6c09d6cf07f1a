#!/bin/bash
# One study on whole nodes of a Slurm cluster; with kdsearch's environment active:
#
#   sbatch cluster/slurm.sh STUDY FOLDER [more options of `kdsearch launch`]
#   sbatch cluster/slurm.sh search_spaces/mrpc.yaml /shared/runs/mrpc --data-dir /shared/data
#
# Change: the nodes, their GPUs, the time. It should be longer than the longest training. Options of
# sbatch on the command line win over these.
#SBATCH --job-name=kdsearch
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00

# Ray takes whole nodes, and `ray symmetric-run` ends every Ray of the user on them.
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --ntasks-per-node=1

# B: this shell alone is told that the time is nearly up; the signal would kill `ray symmetric-run`.
#SBATCH --signal=B:USR1@900
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u

study=${1:?the study file}
folder=${2:?the folder of the study, on storage that every node sees}
shift 2

# The token lies in the home directory, which the nodes share. RAY_memory_monitor_refresh_ms=0: with
# Ray's memory monitor a training that takes too much memory may end the whole search; without it the
# kernel kills that one process.
export RAY_AUTH_MODE=token RAY_memory_monitor_refresh_ms=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
ray get-auth-token --generate >/dev/null

finished() { find "$folder/outcomes" -name '*.json' 2>/dev/null | wc -l; }

# What a stop or an exit code means to this script: see cluster/README.md.
export KDSEARCH_BATCH=1

# Nearly over: finish what can be finished. A stop that is asked for here is for this job alone; where
# somebody has asked to stop, that is for good.
own_stop() { grep -qs '"person": false' "$folder/stop.json"; }
drained=
drain() {
  [ -e "$folder/stop.json" ] && ! own_stop && return
  drained=yes
  kdsearch stop "$folder" --drain
}
trap drain USR1

ends=$(date +%s -d "$(squeue --noheader --job="$SLURM_JOB_ID" --format=%e)")
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
before=$(finished)

# Ray on every node and the launch on the first, which leaves a minute before the end at the latest. Its
# exit code lies in a file: where Ray does not start, `ray symmetric-run` may say 0.
export KDSEARCH_CODE
KDSEARCH_CODE=$(mktemp)
# shellcheck disable=SC2016  # the shell on the first node expands it
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  sh -c 'kdsearch launch "$@"; echo $? >"$KDSEARCH_CODE"' sh "$study" --folder "$folder" --address auto \
  --deadline "$(date +%FT%T -d "@$((ends - 60))")" "$@" &
launch=$!
while kill -0 "$launch" 2>/dev/null; do wait "$launch"; done  # a signal ends a wait, not the launch
status=$(cat "$KDSEARCH_CODE")
rm "$KDSEARCH_CODE"
: "${status:=1}"
own_stop && rm "$folder/stop.json"

# 0 says that the same command would change nothing: complete, or stopped for good. Else it goes on, and
# trainings that were cut off go on from their checkpoints. A launch that fails without having finished
# anything would do so again.
if [ "$status" -ne 0 ] && { [ -n "$drained" ] || [ "$(finished)" -gt "$before" ]; }; then
  scontrol requeue "$SLURM_JOB_ID"
else
  exit "$status"
fi
