"""The server's application: routes, probes, refusals, and the loading of the model while the probes already answer.

app = build(settings, model, engine)        # an ASGI application; serving/__main__.py runs it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import mlflow_route, openai_routes, score_route
from serving.answers import FAILED, MLFLOW_ROUTE, findings, refusal
from serving.bodies import InvocationsRequest
from serving.call import current
from serving.chat import Chat
from serving.engine import Engine
from serving.errors import Refused
from serving.gate import OPEN_PATHS, Gate
from serving.metrics import MEDIA_TYPE, Metrics
from serving.model_folder import ModelFolder
from serving.prompts import check_items
from serving.service import Service
from serving.settings import Settings

log = logging.getLogger("phikit.serving")

REFUSALS = {
    400: "A field that cannot be used; the message names it",
    401: "No key, or a wrong one",
    404: "There is no such route, or no such model",
    408: "The request, or its answer, took too long",
    413: "The body is too large",
    415: "The body is not application/json",
    429: "The queue is full; Retry-After says when to try again",
    503: "The model is not loaded",
}


def build(settings: Settings, model: ModelFolder, engine: Engine, give_up: Callable[[str], None]) -> ASGIApp:
    """The application over an engine that is not started yet.

    Args:
        give_up: called, with one line for people, when the engine cannot be loaded.
    """
    metrics = Metrics()
    service = Service(engine, Chat(model), settings, metrics)
    mlflow_app = mlflow_route.MlflowApp(service, str(model.path))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # the probes answer while this goes on: a platform that hears nothing for minutes restarts the container
        loading = asyncio.create_task(_load(service, mlflow_app, give_up))
        yield
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
        await asyncio.to_thread(engine.stop)

    documented = {status: _refused(text) for status, text in REFUSALS.items()}
    # its documentation pages would load scripts from elsewhere; the document itself is /openapi.json
    app = FastAPI(
        title="phikit scoring server",
        version=metadata_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _probes(app, service, metrics, model)
    app.include_router(openai_routes.routes(service, model.facts, documented))
    app.include_router(score_route.routes(service, documented))

    @app.post(MLFLOW_ROUTE, responses=documented)
    async def invocations(request: Request, body: InvocationsRequest) -> Any:
        """Answer by the model's MLflow signature."""
        if not service.ready:
            raise Refused(503, "the model is not loaded; try again", retry_after=5)
        # (before MLflow takes all of it apart)
        check_items(service, body.items, body.format)
        current.get().format = body.format
        return _Passed(mlflow_app, await request.body())

    _refusals(app)
    paths = _document(app, settings)
    return Gate(app, settings, metrics, {app.openapi_url: ("get",), **paths})


async def _load(service: Service, mlflow_app: mlflow_route.MlflowApp, give_up: Callable[[str], None]) -> None:
    try:
        await service.start()
        engine = service.engine
        log.info(
            "ready: %s, %s, %d slots, %d tokens of context, %d of cache",
            engine.name, engine.precision, engine.slots, engine.context, engine.capacity,
        )  # fmt: skip
        await mlflow_app.load()
    except Exception as error:
        give_up(f"the model cannot be loaded: {error}")


class _Passed(Response):
    """An answer that MLflow's application gives."""

    def __init__(self, app: mlflow_route.MlflowApp, request: bytes) -> None:
        super().__init__()
        self._app = app
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.answer(self._request, scope, receive, send)


def _refused(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}


def _document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Complete /openapi.json by what this server's settings and its gate say; the paths in it."""
    document, keyed = app.openapi(), bool(settings.key)
    document["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] = [settings.name]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            # FastAPI's own status for what is refused here with 400
            responses.pop("422", None)
            responses.setdefault("400", _refused(REFUSALS[400]))
            if not keyed or path in OPEN_PATHS:
                responses.pop("401", None)
            else:
                operation["security"] = [{"key": []}]
                responses.setdefault("401", _refused(REFUSALS[401]))
    for name in ("ValidationError", "HTTPValidationError"):
        document["components"]["schemas"].pop(name, None)
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document["paths"]


def _probes(app: FastAPI, service: Service, metrics: Metrics, model: ModelFolder) -> None:
    @app.get("/ping", response_class=PlainTextResponse, responses={503: {"description": "Only a new start helps"}})
    @app.get("/health", response_class=PlainTextResponse, responses={503: {"description": "Only a new start helps"}})
    async def live() -> Response:
        """Whether the server runs; the model may still be loading. A dead engine fails it: a restart is due."""
        return PlainTextResponse("the engine has died\n", 503) if service.dead else PlainTextResponse("\n")

    @app.get("/ready", response_class=PlainTextResponse, responses={503: {"description": "Not (or no longer) ready"}})
    async def ready() -> Response:
        """Whether the model is loaded and its engine lives."""
        if not service.ready:
            return PlainTextResponse("the model is not loaded\n", 503)
        return PlainTextResponse("ready\n")

    @app.get("/version")
    async def version() -> dict[str, Any]:
        """What answers here: the server, the model, the engine, the versions of what they are made of."""
        engine = service.engine
        return {
            "phikit": metadata_version(),
            "mlflow": metadata.version("mlflow"),
            "engine": {"name": engine.name, "precision": engine.precision},
            "limits": {"slots": engine.slots, "context": engine.context, "queue": service.settings.queue},
            "model": {"name": service.settings.name, **model.facts},
        }

    @app.get("/metrics", response_class=PlainTextResponse)
    async def numbers() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=MEDIA_TYPE)


def _refusals(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return refusal(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refusal(request.url.path, findings(error.errors()))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        words = {
            # the gate has read it as JSON, with more room on the stack
            400: "the body: is nested too deeply",
            404: "there is no such route",
            405: f"{request.method}: this route does not take it",
        }
        response = refusal(request.url.path, Refused(error.status_code, words.get(error.status_code, "refused")))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return refusal(request.url.path, FAILED)


def metadata_version() -> str:
    """The kit's version; the image holds no kit, and says so."""
    try:
        return metadata.version("phikit")
    except metadata.PackageNotFoundError:
        return "unpackaged"
