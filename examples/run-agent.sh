#!/usr/bin/env bash
# What:     records one curl call with `tracewire run`. A mock LLM endpoint stands in for the model.
# Run:      examples/run-agent.sh [PATH-OF-TRACEWIRE]
# Expected: the response of the mock, then a timeline with one chat call.
set -euo pipefail
tracewire=${1:-tracewire}
folder=$(mktemp -d)
trap 'kill "$mock" 2>/dev/null; rm -rf "$folder"' EXIT

# The mock prints its addresses as one line of JSON. A named pipe lets this script wait for that line.
mkfifo "$folder/addresses"
"$tracewire" mock --json --ca-out "$folder/ca.pem" >"$folder/addresses" &
mock=$!
read -r addresses <"$folder/addresses"
endpoint=$(printf %s "$addresses" | sed 's/.*"https":"\([^"]*\)".*/\1/')

# --upstream-ca: Tracewire verifies endpoints, and the mock has a CA of its own.
"$tracewire" run --store "$folder/traces.db" --upstream-ca "$folder/ca.pem" -- \
    curl -sS --fail "$endpoint/v1/chat/completions" -H 'content-type: application/json' \
    -d '{"model":"mock","messages":[{"role":"user","content":"hello"}]}'
