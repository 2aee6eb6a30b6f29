#!/bin/sh
# run.sh --addr HOST:PORT: a LocalAI backend of the releases around 4.8, on Debian's grpcio.
exec /usr/bin/python3 -u "$(dirname "$(readlink -f "$0")")/backend.py" "$@"
