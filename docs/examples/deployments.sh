#!/bin/sh
# The life of a deployment, with curl, on the built-in simulator: no GPU is needed.
#
#   modelhost serve --demo &
#   sh docs/examples/deployments.sh
#
# MODELHOST_URL   where ModelHost listens; default http://127.0.0.1:8000
# MODELHOST_KEY   the admin key, if it is not on this machine
# Every step fails the script if its answer is an error.
set -eu
api="${MODELHOST_URL:-http://127.0.0.1:8000}/api"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

call() { # METHOD PATH [BODY [HEADER]]
    method=$1 path=$2
    set -- "${3:-}" "${4:-}"
    printf '\n%s %s %s\n' "$method" "$path" "$1" >&2
    curl -sS --fail-with-body -X "$method" "$api$path" -H 'Content-Type: application/json' \
        ${MODELHOST_KEY:+-H "Authorization: Bearer $MODELHOST_KEY"} ${2:+-H "$2"} ${1:+--data-binary "$1"}
}
number() { sed -n "s/.*\"$1\":\([0-9][0-9]*\).*/\1/p" "$work/answer" | head -n 1; }
text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/answer" | head -n 1; }
fail() { printf 'deployments.sh: %s\n' "$*" >&2; cat "$work/answer" >&2; exit 1; }
until_is() { # ID STATUS: ask until a deployment has come there
    for _ in $(seq 120); do
        call GET "/deployments/$1" >"$work/answer" 2>/dev/null
        [ "$(text status)" = "$2" ] && return
        sleep 0.5
    done
    fail "deployment $1 did not become $2"
}

# The node that takes models. Here there is one, this machine.
call GET /nodes/ >"$work/answer"
node=$(sed 's/[^[]*\[{"id":\([0-9]*\).*/\1/' "$work/answer")

# Is the name free, and would the model fit?
name=tour-$$
port=$((20000 + $$ % 10000))
call GET "/deployments/served-name/check?name=$name" >"$work/answer"
grep -q '"available":true' "$work/answer" || name=$(text suggestion)
request='{"node_id": '$node', "model_name": "demo/tiny-chat", "port": '$port', "gpu_memory_fraction": 0.05, "owner": "tour", "backend": "simulator",
  "duration_seconds": 3600, "skip_resource_check": true, "engine_args": {"served_model_name": "'$name'"},
  "env_vars": [{"key": "VLLM_SIM_LOAD_SECONDS", "value": "0.2"}]}'
call POST /deployments/plan "$request" >"$work/answer"
grep -q '"fits":true' "$work/answer" || fail "it does not fit"

# Start it. The answer waits until the model runs; sent again with the same key, the request starts nothing twice.
call POST '/deployments/start?wait=true' "$request" "Idempotency-Key: $name" >"$work/answer"
[ "$(text status)" = running ] || fail "it does not run"
id=$(number id)
call POST '/deployments/start?wait=true' "$request" "Idempotency-Key: $name" >"$work/answer"
[ "$(number id)" = "$id" ] || fail "it was started twice"
call GET "/deployments/?owner=tour&status=running&limit=10" >"$work/answer"
grep -q "\"id\":$id," "$work/answer" || fail "it is not in the list"
# now the name is taken, and another one is suggested
call GET "/deployments/served-name/check?name=$name" >"$work/answer"
[ "$(number conflict_id)" = "$id" ] || fail "its name is free"

# Two more hours, and no eviction from the warm cache.
call POST "/deployments/$id/extend" '{"hours": 2}' >"$work/answer"
[ "$(number duration_seconds)" = 10800 ] || fail "it was not extended"
call POST "/deployments/$id/pin" '{"pinned": true}' >"$work/answer"

# What it would take to have it again, without the values of its variables.
call GET "/deployments/$id/manifest" >"$work/manifest.json"
cat "$work/manifest.json" >&2

# Stop it, and start it again as it was, this time without an end.
call POST "/deployments/stop/$id" >"$work/answer"
until_is "$id" stopped
call POST "/deployments/$id/restart?wait=true" '{"owner": "tour"}' >"$work/answer"
[ "$(text status)" = running ] || fail "it does not run again"
call POST "/deployments/stop/$id" >"$work/answer"
until_is "$id" stopped

# The same model from the manifest: it says what is served, the request where.
request='{"manifest": '$(cat "$work/manifest.json")', "node_id": '$node', "port": '$((port + 1))', "owner": "tour", "skip_resource_check": true,
  "env_vars": [{"key": "VLLM_SIM_LOAD_SECONDS", "value": "0.1"}]}'
call POST '/deployments/from-manifest?wait=true' "$request" >"$work/answer"
[ "$(text status)" = running ] || fail "it does not run from its manifest"
copy=$(number id)

# Its launches, and its log: the last lines, and all of it as a file.
call GET "/deployments/$copy/runs" >"$work/answer"
grep -q '"load_seconds":[0-9]' "$work/answer" || fail "its run was not measured"
call GET "/deployments/$copy/logs?tail=5" >&2
call GET "/deployments/$copy/logs/download" >"$work/run.log"
[ -s "$work/run.log" ] || fail "it has no log"

# A record is a deployment that nothing is started for; a restart would start it.
request='{"node_id": '$node', "model_name": "demo/later", "port": '$((port + 2))', "gpu_memory_fraction": 0.05, "owner": "tour", "backend": "simulator"}'
call POST /deployments/ "$request" >"$work/answer"
record=$(number id)

# Stop what runs, and delete all of them.
call POST "/deployments/stop/$copy" >"$work/answer"
until_is "$copy" stopped
for gone in "$id" "$copy" "$record"; do
    call DELETE "/deployments/$gone" >"$work/answer"
done
call GET "/deployments?owner=tour" >"$work/answer"
[ "$(cat "$work/answer")" = "[]" ] || fail "something is left"
printf '\nThat was the whole life of a deployment.\n'
