#!/bin/sh
# What a model's engine does and takes, and its end, with curl, as LocalAI's clients ask.
#
#   modelhost serve --demo &
#   MODEL=demo/small-chat sh docs/examples/monitor.sh
#
# MODELHOST_URL   where ModelHost listens; default http://127.0.0.1:8000
# MODELHOST_KEY   the admin key, if it is not on this machine
# MODEL           a model that runs; it is stopped at the end
# Every step fails the script if its answer is an error.
set -eu
url="${MODELHOST_URL:-http://127.0.0.1:8000}"
model=${MODEL:?name a model that runs}

curl() { command curl -sS --fail-with-body ${MODELHOST_KEY:+-H "Authorization: Bearer $MODELHOST_KEY"} "$@"; echo; }

# State (0 loading, 1 busy, 2 ready, -1 error) and memory. A body is sent by POST,
curl "$url/backend/monitor" \
  -H "Content-Type: application/json" \
  -d '{"model": "'"$model"'"}'

# or with GET,
curl -X GET "$url/v1/backend/monitor" \
  -H "Content-Type: application/json" \
  -d '{"model": "'"$model"'"}'

# and a query does without one.
curl -G "$url/backend/monitor" --data-urlencode "model=$model"

# Tokens since the engine began, and everything that runs.
curl -G "$url/v1/tokenMetrics" --data-urlencode "model=$model"
curl "$url/system"

# Its end. Calls under way have 30 seconds; "force": true cuts them off.
curl -X POST "$url/backend/shutdown" \
  -H "Content-Type: application/json" \
  -d '{"model": "'"$model"'"}'
