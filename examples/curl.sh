#!/bin/sh
# One picture of this machine, with curl and nothing else.
#
#     sh curl.sh picture.png "What is this?"
#
# Environment: OPENAI_BASE_URL, such as http://127.0.0.1:8000/v1; OPENAI_API_KEY where the server has one; MODEL as
# curl "$OPENAI_BASE_URL/models" names it. The question goes into JSON as it is: no quotes in it.
set -eu
base64 -w0 "$1" |
    sed 's|.*|{"model": "'"$MODEL"'", "max_tokens": 256, "temperature": 0, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,&"}}, {"type": "text", "text": "'"$2"'"}]}]}|' |
    curl --silent --show-error --fail-with-body "$OPENAI_BASE_URL/chat/completions" \
        -H "Content-Type: application/json" -H "Authorization: Bearer ${OPENAI_API_KEY:-none}" --data-binary @-
