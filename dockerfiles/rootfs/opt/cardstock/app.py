"""The application: paths, what they depend on, and every error in OpenAI's form."""

# No postponed annotations: FastAPI looks up those of an endpoint among the names of its module, and some are local.

import hmac
from typing import Annotated

import api_docs  # type: ignore[import-not-found,unused-ignore]
import metrics  # type: ignore[import-not-found,unused-ignore]
import request_body  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from completions import Completions  # type: ignore[import-not-found,unused-ignore]
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jobs import Backend  # type: ignore[import-not-found,unused-ignore]
from openai_answers import ModelList, model_list  # type: ignore[import-not-found,unused-ignore]
from openai_api import ChatRequest  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect


def create_app(backend: Backend, settings: Settings) -> FastAPI:
    """The application. ``backend`` is loaded already: a server that answers is a server that is ready."""
    app: FastAPI = api_docs.DescribedApi(
        title="Cardstock", version="1", description=api_docs.DESCRIPTION,
        redoc_url=None, swagger_ui_oauth2_redirect_url=None,
    )  # fmt: skip
    completions = Completions(backend, settings)
    _add_endpoints(app, completions)
    _add_error_handlers(app, completions.metrics)
    return app


def _add_endpoints(app: FastAPI, completions: Completions) -> None:
    """What an endpoint depends on runs in the order it is named: the key before a body is read."""
    backend, settings = completions.backend, completions.settings
    bearer = HTTPBearer(auto_error=False, description="Only where the server has a key.")

    async def key(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        wanted = settings.api_key
        if wanted and not hmac.compare_digest((given.credentials if given else "").encode(), wanted.encode()):
            raise ApiError(401, "Unauthorized", code="invalid_api_key")

    async def chat_request(request: Request) -> ChatRequest:
        body = await request_body.read(request.stream(), settings.max_body)
        return request_body.check(request_body.parse(body))

    @app.get("/health", summary="200 while the model can answer, else 503", response_class=Response)
    async def health() -> Response:
        return Response(status_code=200 if backend.healthy else 503)

    @app.get("/v1/models", summary="The names the model is served under", dependencies=[Depends(key)],
             response_model=ModelList, responses=api_docs.UNAUTHORIZED)  # fmt: skip
    async def models() -> Response:
        return JSONResponse(model_list(settings.models, backend.max_model_len))

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def numbers() -> Response:
        return Response(completions.metrics.text(), media_type=metrics.TYPE)

    @app.post("/v1/chat/completions", summary="Answer a conversation", dependencies=[Depends(key)],
              response_model=None, responses=api_docs.ANSWERS, openapi_extra=api_docs.BODY)  # fmt: skip
    async def chat(request: Request, asked: Annotated[ChatRequest, Depends(chat_request)]) -> Response:
        answer: Response = await completions.answer(request, asked)
        return answer


def _error_response(error: ApiError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def _add_error_handlers(app: FastAPI, counts: metrics.Metrics) -> None:
    @app.exception_handler(ClientDisconnect)
    async def client_left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        counts.refused.labels(error.status).inc()
        return _error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return _error_response(ApiError(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def any_error(_: Request, error: Exception) -> Response:
        return _error_response(ApiError(500, f"the server failed ({type(error).__name__}): see its log"))
