"""A picture of this machine, sent inside of the request as a data: URL.

python data_url.py picture.png "What is this?"

Environment: OPENAI_BASE_URL, such as http://127.0.0.1:8000/v1, and OPENAI_API_KEY.
"""

import base64
import mimetypes
import sys
from pathlib import Path

from openai import OpenAI


def data_url(path: str) -> str:
    """The file as the text that stands where else its address would."""
    kind = mimetypes.guess_type(path)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


client = OpenAI()
answer = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": data_url(sys.argv[1])}},
                {"type": "text", "text": sys.argv[2]},
            ],
        }
    ],
    max_tokens=256,
    temperature=0,
)
print(answer.choices[0].message.content)
