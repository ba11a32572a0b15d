#!/bin/sh
# An agent in POSIX sh: reads its task from the file, calls the model once, prints its reward as the last line.
set -eu
# The task as it stands is JSON; as a message's content it must be a JSON string.
question=$(sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' "$TRACEWIRE_INPUT" | tr -d '\n')
answer=$(curl -sS --fail-with-body "$OPENAI_BASE_URL/chat/completions" \
  -H "Authorization: Bearer ${OPENAI_API_KEY:-tracewire}" -H 'Content-Type: application/json' \
  -d "{\"model\": \"mock\", \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}]}")
case $answer in
  *'"choices"'*) ;;
  *) echo "no answer: $answer" >&2; exit 1 ;;
esac
echo "asked about $question"
echo '{"reward": 1.0}'
