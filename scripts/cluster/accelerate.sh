#!/bin/bash
# Tokenize, or train, with `accelerate launch` on several machines: on each of them with a NODE_RANK of its own.
#
#   CONFIG=my.yaml NODES=2 NODE_RANK=0 HEAD=host0 scripts/cluster/accelerate.sh
#   CONFIG=my.yaml NODES=2 NODE_RANK=1 HEAD=host0 scripts/cluster/accelerate.sh

CONFIG=${CONFIG:-configs/sample.yaml}
JOB=${JOB:-tokenize}
NODES=${NODES:-2}
NODE_RANK=${NODE_RANK:?0 to NODES - 1, another one on each machine}
HEAD=${HEAD:?the machine with NODE_RANK=0}
PORT=${PORT:-29500}         # on HEAD
PROCESSES=${PROCESSES:-8}   # on each machine, one for each GPU
BIN=${BIN:-.venv/bin}

# --num_processes counts those of all machines. Precision is the configuration's business, not the launcher's.
exec "$BIN/accelerate" launch --multi_gpu --num_machines "$NODES" --machine_rank "$NODE_RANK" \
    --num_processes "$((NODES * PROCESSES))" --main_process_ip "$HEAD" --main_process_port "$PORT" \
    --mixed_precision no --dynamo_backend no \
    --no_python "$BIN/vqtok" "$JOB" --config "$CONFIG" "$@"
