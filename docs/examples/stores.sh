#!/bin/sh
# A vector store, with curl: no model and no GPU is needed.
#
#   modelhost serve &
#   sh docs/examples/stores.sh
#
# MODELHOST_URL   where ModelHost listens; default http://127.0.0.1:8000
# MODELHOST_KEY   an API key for inference, once there is one
# Every step fails the script if its answer is an error.
set -eu
url="${MODELHOST_URL:-http://127.0.0.1:8000}"
store=tour-$$

call() { # PATH BODY
    printf '\nPOST /stores/%s %s\n' "$1" "$2" >&2
    curl -sS --fail-with-body "$url/stores/$1" -H 'Content-Type: application/json' ${MODELHOST_KEY:+-H "Authorization: Bearer $MODELHOST_KEY"} -d "$2"
}
fail() { printf 'stores.sh: %s\n' "$*" >&2; exit 1; }

# Three keys with their values; the first set makes the store.
call set '{"store": "'$store'", "keys": [[0.1, 0.2, 0.3], [0.9, 0.1, 0.1], [0.0, 0.0, 1.0]], "values": ["red", "green", "blue"]}'

# The two nearest, nearest first.
call find '{"store": "'$store'", "key": [1.0, 0.1, 0.0], "topk": 2}' | grep '"values":\["green","red"\]' || fail "others are nearer"

# A set of a key that is there replaces its value.
call set '{"store": "'$store'", "keys": [[0.0, 0.0, 1.0]], "values": ["azure"]}'
call get '{"store": "'$store'", "keys": [[0.0, 0.0, 1.0], [5, 5, 5]]}' | grep '"values":\["azure"\]' || fail "the old value is there"

# Delete all of them.
call delete '{"store": "'$store'", "keys": [[0.1, 0.2, 0.3], [0.9, 0.1, 0.1], [0.0, 0.0, 1.0]]}'
call find '{"store": "'$store'", "key": [1.0, 0.1, 0.0], "topk": 2}' | grep '"values":\[\]' || fail "something is left"
printf '\nThat was a vector store.\n'
