#!/bin/bash
# Tokenize on several machines without a scheduler: `vqtok tokenize` over ssh on every host of a file, one in each line.
#
#   CONFIG=my.yaml PROCESSES=8 scripts/cluster/start_n.sh hosts.txt
#
# The hosts have this folder, the data and the store under the same paths. A host that fails leaves its work to the
# others; hosts that come later are started the same way, with a file of their own. Ends when all have ended.

HOSTS=${1:?a file of host names}
CONFIG=${CONFIG:-configs/sample.yaml}
PROCESSES=${PROCESSES:-1}                 # on each host: as many as it has GPUs
BIN=${BIN:-.venv/bin}
SSH=${SSH:-ssh -tt -o BatchMode=yes}      # -tt: what it started ends with it

command=$(printf 'cd %q && exec %q tokenize --no-progress --config %q --processes %q' \
    "$PWD" "$BIN/vqtok" "$CONFIG" "$PROCESSES")
started=()
trap 'kill "${started[@]}"' INT TERM
while read -r host _ || [ "$host" ]; do  # the last line may have no end
    host=${host%$'\r'}                     # nor those of Windows its carriage return
    case $host in '' | '#'*) continue ;; esac
    $SSH "$host" "$command" </dev/null > >(sed -u "s|^|$host: |") 2>&1 &
    started+=($!)
done <"$HOSTS"
if [ ${#started[@]} -eq 0 ]; then
    echo "start_n: $HOSTS names no host, one in each line" >&2
    exit 2
fi

largest=0
for process in "${started[@]}"; do
    while kill -0 "$process" 2>/dev/null; do wait "$process"; done
    wait "$process"
    status=$?
    [ "$status" -gt "$largest" ] && largest=$status
done
exit "$largest"
