#!/usr/bin/env bash
# What:     a curl call behind `tracewire run`, against the mock endpoint.
# Run:      examples/run-agent.sh [PATH-OF-TRACEWIRE]
# Expected: the answer of the mock, then a timeline with one POST.
set -euo pipefail
tracewire=${1:-tracewire}
folder=$(mktemp -d)
trap 'kill "$mock" 2>/dev/null; rm -rf "$folder"' EXIT
mkfifo "$folder/hello"
"$tracewire" mock --json --ca-out "$folder/ca.pem" >"$folder/hello" &
mock=$!
read -r hello <"$folder/hello"
https=$(printf %s "$hello" | sed 's/.*"https":"\([^"]*\)".*/\1/')
"$tracewire" run --store "$folder/traces.db" --upstream-ca "$folder/ca.pem" -- curl -sS --fail "$https/v1/chat/completions" \
    -H 'content-type: application/json' -d '{"model":"mock","messages":[{"role":"user","content":"hello"}]}'
