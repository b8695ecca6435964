"""Many pictures, several requests at a time: the server computes them together, which is far more in an hour.

python batch.py "What colour is the square?" *.png

One line for each picture, in order; a request that fails does not stop the others, but the exit code is 1.
Environment: OPENAI_BASE_URL, such as http://127.0.0.1:8000/v1, and OPENAI_API_KEY.
"""

import asyncio
import base64
import mimetypes
import sys
from pathlib import Path

from openai import AsyncOpenAI, OpenAIError

AT_A_TIME = 8  # max_num_seqs of `./inv fit` is a good number; more wait in the server


async def ask(client: AsyncOpenAI, model: str, path: str, question: str, turn: asyncio.Semaphore) -> str:
    """The answer about one picture."""
    async with turn:
        kind = mimetypes.guess_type(path)[0] or "image/png"
        url = f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
        answer = await client.chat.completions.create(
            model=model,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": url}},
                        {"type": "text", "text": question},
                    ],
                }
            ],
            max_tokens=256,
            temperature=0,
        )
    return answer.choices[0].message.content or ""


async def main(question: str, *paths: str) -> int:
    """Ask about all of them; 1 if any failed."""
    turn = asyncio.Semaphore(AT_A_TIME)
    failed = 0
    async with AsyncOpenAI() as client:
        model = (await client.models.list()).data[0].id
        asked = [ask(client, model, path, question, turn) for path in paths]
        for path, answer in zip(paths, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, OpenAIError | OSError):
                failed = 1
                print(f"{path}: {answer}", file=sys.stderr)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                print(f"{path}\t{answer}")
    return failed


sys.exit(asyncio.run(main(*sys.argv[1:])))
