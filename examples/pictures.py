"""Several pictures in one question. How many a request may hold, `./inv fit` says.

python pictures.py "What are these?" first.png second.png

Environment: OPENAI_BASE_URL, such as http://127.0.0.1:8000/v1, and OPENAI_API_KEY.
"""

import base64
import mimetypes
import sys
from pathlib import Path
from typing import Any

from openai import OpenAI


def picture(path: str) -> dict[str, Any]:
    """A message's part that holds a file's picture."""
    kind = mimetypes.guess_type(path)[0] or "image/png"
    url = f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


question, *paths = sys.argv[1:]
content: Any = [*map(picture, paths), {"type": "text", "text": question}]
client = OpenAI()
answer = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": content}],
    max_tokens=256,
    temperature=0,
)
print(answer.choices[0].message.content)
