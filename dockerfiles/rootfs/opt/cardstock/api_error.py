"""An answer that refuses or fails, in OpenAI's error form. Standard library only."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """HTTP status, a sentence for the person who asked, the request's field at fault and a code, where there is one."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The JSON body (openai_answers.ErrorBody)."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
