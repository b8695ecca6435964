"""What a request must be before anything else looks at it: its Host, its Origin, the key, the type of its body.

A page that a browser has open can send requests to this machine. Such a request names its page as Origin, may use a
name for this machine that is not its own, and, if it is to go out unasked, has no JSON type: all three are refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from fastapi.responses import JSONResponse
from hosts import host_allowed, origin_allowed  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = ("/health",)  # asked without a key


class Front:
    """Refuses, or hands on. ``refused`` hears of each refusal."""

    def __init__(self, app: ASGIApp, settings: Settings, refused: Callable[[ApiError], None]) -> None:
        self._app, self._settings, self._refused = app, settings, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            self._refused(error)
            await error_response(error)(scope, receive, send)

    def _fault(self, scope: Scope) -> ApiError | None:
        settings, headers = self._settings, Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        host = hosts[0] if len(hosts) == 1 else ""
        if not host_allowed(host, settings.hosts):
            return ApiError(403, f"the host {host[:100]!r} is not answered: add its name to CARDSTOCK_ALLOWED_HOSTS",
                            code="host_not_allowed")  # fmt: skip
        if not all(origin_allowed(origin, host, settings.origins) for origin in origins):
            return ApiError(403, f"pages of {origins[0][:100]!r} are not answered: add it to CARDSTOCK_ALLOWED_ORIGINS",
                            code="origin_not_allowed")  # fmt: skip
        if settings.api_key and scope["path"] not in OPEN and not _has_key(headers, settings.api_key):
            return ApiError(401, "Unauthorized", code="invalid_api_key")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return ApiError(415, "the request must have the header Content-Type: application/json",
                            code="unsupported_media_type")  # fmt: skip
        return None


def _has_key(headers: Headers, wanted: str) -> bool:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return hmac.compare_digest(key.strip().encode(), wanted.encode()) and scheme.lower() == "bearer"


def error_response(error: ApiError, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's form."""
    more = dict(headers or {})
    if error.status == 503:
        more["Retry-After"] = "1"
    if error.status == 401:
        more["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body(), status_code=error.status, headers=more)
