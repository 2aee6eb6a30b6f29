#!/bin/sh
# Installs a backend and a model from galleries on a node, chats with the model, and takes both away again.
#
#   modelhost serve &
#   sh docs/examples/gallery.sh
#
# MODELHOST_URL   where ModelHost listens; default http://127.0.0.1:8000
# MODELHOST_KEY   the admin key, if it is not on this machine
# NODE            id of the node; default 1
# BACKEND         a backend of GET /backends/available, which the model runs on; default vllm
# MODEL           a model of GET /models/available that the node has room for; default qwen3-8b
# NAME            what it is called then; default gallery-example
# Every step fails the script if its answer is an error.
set -eu
url="${MODELHOST_URL:-http://127.0.0.1:8000}"
node="${NODE:-1}"
backend="${BACKEND:-vllm}"
model="${MODEL:-qwen3-8b}"
name="${NAME:-gallery-example}"

curl() { command curl -sS --fail-with-body ${MODELHOST_KEY:+-H "Authorization: Bearer $MODELHOST_KEY"} "$@"; echo; }
post() { echo "POST $1" >&2; curl -X POST "$url$1" -H "Content-Type: application/json" ${2:+-d "$2"}; }

# An installation that fails is no error of the request: the reason is in the job's status.
job() {
  answer=$(post "$@")
  echo "$answer"
  case "$answer" in *'"error":'*) exit 1 ;; esac
}

# What there is, and what nodes have.
curl "$url/backends/available"
curl "$url/models/available"

# The backend, on this node alone. With ?wait=true the answer comes with the end of the job; without, its progress is at statusUrl.
job "/api/nodes/$node/backends/install?wait=true" "{\"backend\": \"$backend\"}"
curl "$url/api/nodes/$node/backends"

# The model, with its deployment started there.
job "/models/apply?wait=true" "{\"id\": \"$model\", \"name\": \"$name\", \"nodes\": [$node], \"deploy\": {\"start\": true}}"

# It is served when it is in the list of models.
echo "waiting for $name" >&2
until curl "$url/v1/models" | grep -q "\"id\":\"$name\""; do sleep 1; done
curl "$url/v1/chat/completions" -H "Content-Type: application/json" \
  -d "{\"model\": \"$name\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}], \"max_tokens\": 16}"

# Newer versions, and nodes that do not have the same.
post "/backends/upgrades/check?wait=true"

# Away again: the model with its deployment and files, then the backend. Images, which vllm is, stay with the node's engine of containers.
job "/models/delete/$name?wait=true"
if [ "$backend" != vllm ]; then
  job "/api/nodes/$node/backends/delete" "{\"backend\": \"$backend\"}"
fi
