#!/bin/bash
# Runs schemathesis against the server's own OpenAPI file: check_openapi.sh PROGRAM [OPTION...].
# The options are those of schemathesis, such as --max-time 300.
set -euo pipefail
cd "$(dirname "$0")/../.."

program=$1
shift
cache=$(tools/clients/setup.sh)
log=$(mktemp)
"$program" serve --backend cpu --port 0 --ctx 256 --parallel 4 2>"$log" &
server=$!
trap 'kill "$server"; rm "$log"' EXIT
until address=$(sed -n 's/^listening on //p' "$log") && [ -n "$address" ]; do
    kill -0 "$server"
    sleep 0.2
done
checks=not_a_server_error,status_code_conformance,content_type_conformance
checks+=,response_schema_conformance,unsupported_method
"$cache/venv/bin/schemathesis" run "$address/openapi.json" --checks "$checks" \
    --phases examples,coverage,fuzzing --max-examples 20 "$@"
