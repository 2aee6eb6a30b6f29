#!/bin/sh
# run.sh --addr HOST:PORT: a LocalAI backend of the releases around 2.24, on grpc-js.
exec node "$(dirname "$(readlink -f "$0")")/backend.mjs" "$@"
