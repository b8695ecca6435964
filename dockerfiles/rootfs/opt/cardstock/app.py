"""The application: paths, what they depend on, and every error in OpenAI's form."""

# No postponed annotations: FastAPI looks up those of an endpoint among the names of its module, and some are local.

from typing import Annotated

import api_docs  # type: ignore[import-not-found,unused-ignore]
import docs_page  # type: ignore[import-not-found,unused-ignore]
import metrics  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from completions import Completions  # type: ignore[import-not-found,unused-ignore]
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from front import Front, error_response  # type: ignore[import-not-found,unused-ignore]
from jobs import Backend  # type: ignore[import-not-found,unused-ignore]
from openai_answers import ModelList, model_list  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect


def create_app(backend: Backend, settings: Settings) -> FastAPI:
    """The application. ``backend`` is loaded already: a server that answers is a server that is ready."""
    app: FastAPI = api_docs.DescribedApi(
        title="Cardstock", version="1", description=api_docs.DESCRIPTION, docs_url=None, redoc_url=None,
    )  # fmt: skip
    completions = Completions(backend, settings)
    _add_endpoints(app, completions)
    _add_error_handlers(app, completions.metrics)
    app.add_middleware(Front, settings=settings, refused=completions.metrics.count_refusal)
    if settings.origins:  # outermost: a browser asks it, without a key, whether a page may send a request
        app.add_middleware(
            CORSMiddleware, allow_origins=sorted(settings.origins), allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )  # fmt: skip
    return app


def _add_endpoints(app: FastAPI, completions: Completions) -> None:
    """`front.py` asks for the key; an endpoint that names ``key`` has it in its description."""
    backend, settings = completions.backend, completions.settings
    bearer = HTTPBearer(auto_error=False, description="Only where the server has a key.")

    async def key(_: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        pass

    @app.get("/health", summary="200 while the model can answer, else 503", response_class=Response)
    async def health() -> Response:
        return Response(status_code=200 if backend.healthy else 503)

    @app.get("/v1/models", summary="The names the model is served under", dependencies=[Depends(key)],
             response_model=ModelList, responses=api_docs.UNAUTHORIZED)  # fmt: skip
    async def models() -> Response:
        return JSONResponse(model_list(settings.models, backend.max_model_len))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page.page(app.openapi()), headers=docs_page.HEADERS)

    @app.get("/metrics", summary="For Prometheus", dependencies=[Depends(key)], response_class=Response)
    async def numbers() -> Response:
        return Response(completions.metrics.text(), media_type=metrics.TYPE)

    @app.post("/v1/chat/completions", summary="Answer a conversation", dependencies=[Depends(key)],
              response_model=None, responses=api_docs.ANSWERS, openapi_extra=api_docs.BODY)  # fmt: skip
    async def chat(request: Request) -> Response:
        answer: Response = await completions.answer(request)
        return answer


def _answer(error: ApiError, headers: dict[str, str] | None = None) -> Response:
    answer: Response = error_response(error, headers)
    return answer


def _add_error_handlers(app: FastAPI, counts: metrics.Metrics) -> None:
    @app.exception_handler(ClientDisconnect)
    async def client_left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        counts.count_refusal(error)
        return _answer(error)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        refusal = ApiError(error.status_code, str(error.detail))
        return _answer(refusal, dict(error.headers or {}))  # 405 says in Allow what is taken

    @app.exception_handler(Exception)
    async def any_error(_: Request, error: Exception) -> Response:
        return _answer(ApiError(500, f"the server failed ({type(error).__name__}): see its log"))
