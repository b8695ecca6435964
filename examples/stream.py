"""An answer as it is made, word by word.

python stream.py "Say hello" "You are a friendly model."

The second text, if there is one, is the system's. Environment: OPENAI_BASE_URL, such as http://127.0.0.1:8000/v1, and
OPENAI_API_KEY.
"""

import sys
from typing import Any

from openai import OpenAI

question, *system = sys.argv[1:]
messages: Any = [{"role": "system", "content": text} for text in system]
messages.append({"role": "user", "content": question})
client = OpenAI()
stream = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=messages,
    max_tokens=256,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
for event in stream:
    for choice in event.choices:
        print(choice.delta.content or "", end="", flush=True)
    if event.usage:  # the last event has no choices
        print(f"\n{event.usage.completion_tokens} tokens", file=sys.stderr)
print()
