"""One picture and a question.

python one_picture.py https://example.com/picture.jpg "What is this?"

The server fetches the picture, if it was started with --allow-media-domain example.com. Environment: OPENAI_BASE_URL,
such as http://127.0.0.1:8000/v1, and OPENAI_API_KEY (any text, unless the server was started with a key).
"""

import sys

from openai import OpenAI

client = OpenAI()
model = client.models.list().data[0].id  # what the server serves
answer = client.chat.completions.create(
    model=model,
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": sys.argv[1]}},
                {"type": "text", "text": sys.argv[2]},
            ],
        }
    ],
    max_tokens=256,
    temperature=0,
)
print(answer.choices[0].message.content)
