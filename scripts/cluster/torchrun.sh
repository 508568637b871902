#!/bin/bash
# Tokenize, or train, with torchrun on several machines: the same command on each of them.
#
#   CONFIG=my.yaml NODES=2 HEAD=host0 scripts/cluster/torchrun.sh
#   CONFIG=my.yaml NODES=2 HEAD=host0 JOB=train scripts/cluster/torchrun.sh

CONFIG=${CONFIG:-configs/sample.yaml}
JOB=${JOB:-tokenize}
NODES=${NODES:-2}
HEAD=${HEAD:?the name of one of the machines, which the others can reach}
PORT=${PORT:-29400}                # on HEAD
PROCESSES=${PROCESSES:-8}          # on each machine, one for each GPU
MAX_RESTARTS=${MAX_RESTARTS:-3}    # of all ranks together: one that dies takes the others with it
BIN=${BIN:-.venv/bin}

# c10d: the machines find their ranks themselves, so the command is the same everywhere.
exec "$BIN/torchrun" --nnodes "$NODES" --nproc-per-node "$PROCESSES" --max-restarts "$MAX_RESTARTS" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "vqtok-$JOB" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    --no-python "$BIN/vqtok" "$JOB" --config "$CONFIG" "$@"
