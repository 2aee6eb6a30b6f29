#!/bin/sh
# API keys, with curl, on the built-in simulator: no GPU is needed.
#
#   modelhost serve --demo &
#   sh docs/examples/keys.sh
#
# MODELHOST_URL   where ModelHost listens; default http://127.0.0.1:8000
# MODELHOST_KEY   the admin key, if it is not on this machine
# While it runs, /v1 asks for a key. At the end its keys are revoked. Every step fails the script if its answer is not the one expected.
set -eu
url=${MODELHOST_URL:-http://127.0.0.1:8000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

call() { # METHOD PATH [BODY [KEY]]: what the administrator, or a key in his place, does
    method=$1 path=$2
    set -- "${3:-}" "${4:-${MODELHOST_KEY:-}}"
    printf '\n%s %s %s\n' "$method" "$path" "$1" >&2
    curl -sS --fail-with-body -X "$method" "$url/api$path" -H 'Content-Type: application/json' \
        ${2:+-H "Authorization: Bearer $2"} ${1:+--data-binary "$1"} >"$work/answer"
}
number() { sed -n "s/.*\"$1\":\([0-9][0-9]*\).*/\1/p" "$work/answer" | head -n 1; }
text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/answer" | head -n 1; }
fail() { printf 'keys.sh: %s\n' "$*" >&2; sed 's/"key":"[^"]*"/"key":"…"/' "$work/answer" >&2; exit 1; }
ask() { # MODEL [KEY]: the status of a chat
    curl -sS -o "$work/answer" -w '%{http_code}' "$url/v1/chat/completions" -H 'Content-Type: application/json' ${2:+-H "Authorization: Bearer $2"} \
        -d '{"model": "'"$1"'", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello!"}]}'
}
expect() { # STATUS MODEL [KEY]
    status=$1
    shift
    [ "$(ask "$@")" = "$status" ] || fail "a chat with '$1' was not answered with $status"
    printf '%s  chat with %s\n' "$status" "$1" >&2
}

# Two models.
call GET /nodes/
node=$(sed 's/[^[]*\[{"id":\([0-9]*\).*/\1/' "$work/answer")
start() { # NAME PORT
    call POST '/deployments/start?wait=true' '{"node_id": '"$node"', "model_name": "demo/tiny-chat", "port": '"$2"', "gpu_memory_fraction": 0.05, "owner": "tour",
      "backend": "simulator", "skip_resource_check": true, "engine_args": {"served_model_name": "'"$1"'"}}'
    [ "$(text status)" = running ] || fail "$1 does not run"
}
one=keys-$$-one two=keys-$$-two port=$((20000 + $$ % 10000))
start "$one" "$port"
one_id=$(number id)
start "$two" $((port + 1))
two_id=$(number id)

# The first permanent key closes /v1. The answer has the key, and nothing else ever will.
call POST /api-keys '{"label": "tour: everything"}'
everything=$(text key) everything_id=$(number id)
expect 401 "$one"
expect 200 "$one" "$everything"

# One key for one deployment, and one for a model by its name, whatever deployment serves it.
call POST /api-keys '{"label": "tour: one deployment", "deployment_ids": ['"$one_id"']}'
scoped=$(text key) scoped_id=$(number id)
expect 200 "$one" "$scoped"
expect 403 "$two" "$scoped"
call POST /api-keys '{"label": "tour: by name", "models": ["'"$two"'"]}'
named=$(text key) named_id=$(number id)
expect 403 "$one" "$named"
expect 200 "$two" "$named"
expect 404 nobody "$named"
curl -sS --fail-with-body "$url/v1/models" -H "Authorization: Bearer $named" >"$work/answer"
grep -q "$two" "$work/answer" && ! grep -q "$one" "$work/answer" || fail "the list is not that of the key"

# A change is of what is given, and counts at once; null takes a limit away.
call PATCH "/api-keys/$scoped_id" '{"label": "tour: both deployments", "deployment_ids": ['"$one_id, $two_id"']}'
expect 200 "$two" "$scoped"
call PATCH "/api-keys/$scoped_id" '{"deployment_ids": null}'
call PATCH "/api-keys/$scoped_id" '{"deployment_ids": ['"$one_id"'], "expires_at": "2999-12-31T00:00:00Z"}'
expect 403 "$two" "$scoped"

# A permanent key makes temporary ones, for a browser or a notebook: they can do what it can, and go with it.
call POST /api-keys '{"label": "tour: notebook", "ttl_seconds": 600}' "$scoped"
notebook=$(text key)
expect 200 "$one" "$notebook"
expect 403 "$two" "$notebook"
if call POST /api-keys '{"label": "tour: more", "ttl_seconds": 600, "deployment_ids": ['"$two_id"']}' "$scoped"; then fail "a key has made more than itself"; fi

# A key for Prometheus reads the metrics and asks no model.
call POST /api-keys '{"label": "tour: prometheus", "roles": ["metrics"]}'
metrics=$(text key) metrics_id=$(number id)
curl -sS --fail-with-body "$url/metrics" -H "Authorization: Bearer $metrics" >"$work/answer"
expect 403 "$one" "$metrics"

# Anthropic's SDKs send their key in a header of their own.
curl -sS --fail-with-body "$url/v1/models" -H "X-Api-Key: $everything" >"$work/answer"

# Who has which key, and when it was used last.
call GET /api-keys
grep -q '"label":"tour: notebook"' "$work/answer" || fail "a key is missing"
if grep -q "$scoped" "$work/answer"; then fail "a key is shown"; fi

# What each key has used, also after it is gone; as a table for spreadsheets, too.
call GET "/usage?group_by=key&key_id=$scoped_id"
[ "$(number completion_tokens)" -gt 0 ] || fail "what the key has used is not counted"
call GET '/usage?group_by=key,day&format=csv'
grep -q '"\{0,1\}tour: by name' "$work/answer" || fail "a key is missing in the table"

# Revoked keys, and what they have made, are refused from the next request on.
for gone in "$scoped_id" "$named_id" "$metrics_id"; do
    call DELETE "/api-keys/$gone"
done
expect 401 "$one" "$scoped"
expect 401 "$one" "$notebook"

# The last permanent key opens /v1 again when it goes, which has to be said. Where there are others it goes without.
call DELETE "/api-keys/$everything_id" || { grep -q api_key.last_permanent "$work/answer" || fail "it was not revoked"; call DELETE "/api-keys/$everything_id?acknowledge_open_gateway=true"; }

for id in "$one_id" "$two_id"; do
    call POST "/deployments/stop/$id"
    for _ in $(seq 120); do
        call GET "/deployments/$id" 2>/dev/null
        [ "$(text status)" = stopped ] && break
        sleep 0.5
    done
    call DELETE "/deployments/$id"
done
printf '\nThat was all about keys.\n'
