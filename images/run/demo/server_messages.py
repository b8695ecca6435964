"""What the server refused, or failed at, as a sentence for the person at the page. Pure."""

from __future__ import annotations

from typing import Any


def error_sentence(server: str, error: Exception) -> str:
    """A sentence for an error of the ``openai`` package, recognised by its attributes: it is not imported here.

    One with a ``status_code`` is the server's own word, in ``body``; any other got no answer at all.
    """
    status = getattr(error, "status_code", None)
    if status is None:
        return f"The server at {server} does not answer. If it was stopped, start it again and press regenerate."
    text = _text(getattr(error, "body", None)) or str(error)
    if "maximum context length" in text or "max_model_len" in text:
        return (
            f"The conversation has become too long for the server. Clear it, or send smaller pictures. It said: {text}"
        )
    if "At most" in text and "image" in text:
        return f"The server takes fewer pictures in a request: {text} Clear the conversation, or start it with more."
    return f"The server answered {status}: {text}"


def _text(body: Any) -> str:
    """The message in an error's body: {"message": …}, or one level below in "error"."""
    if not isinstance(body, dict):
        return ""
    inner = body.get("error", body)
    return str(inner.get("message") or "") if isinstance(inner, dict) else str(inner)
