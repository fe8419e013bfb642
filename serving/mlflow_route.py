"""MLflow's contract: POST /invocations, answered by MLflow's own scoring app over the model's own signature.

    curl --silent http://127.0.0.1:5001/invocations --header 'Content-Type: application/json' \
        --data '{"inputs": [{"messages": [{"role": "user", "content": "Who founded Microsoft?"}]}]}'

MLflow parses, enforces the signature and writes the answer; only what predicts is the engine of the other routes
instead of a second copy of the weights. MLflow is imported after the model is ready: it takes seconds, and no probe
needs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answers import FAILED, MLFLOW_ROUTE, refusal
from serving.bodies import Params
from serving.call import current
from serving.errors import Refused
from serving.score_route import answers
from serving.service import Service

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("phikit.serving")

#: Seconds that MLflow's own timeout lies beyond ours: ours names the reason.
MARGIN = 5

ASGI_KEYS = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "headers",
    "client",
    "server",
)

MISFIT = (
    "the body does not fit the model's signature: send "
    '{"inputs": [{"messages": [{"role": "user", "content": "…"}]}], "params": {…}}'
)


class Predictor:
    """What MLflow takes for the loaded model: it hands conversations to the service and waits for the answers."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[str]:
        """Answer each conversation of the column `messages`; runs on a thread of MLflow's choice."""
        conversations = [[dict(message) for message in row] for row in model_input["messages"]]
        known = Params(**{name: value for name, value in (params or {}).items() if name in Params.model_fields})
        call = current.get()
        work = answers(self._service, conversations, known, call.format)
        # (the coroutine runs in a copy of this thread's context, so that it knows its call)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except Refused as refused:
            call.refusal = refused
            raise
        except CancelledError:
            raise
        except Exception:
            # MLflow would tell it as the client's fault
            log.exception("an answer failed")
            call.refusal = FAILED
            raise


class MlflowApp:
    """MLflow's scoring app, with its refusals in words that name the field and repeat nothing."""

    def __init__(self, service: Service, folder: str) -> None:
        self._service = service
        self._folder = folder
        self._app: asyncio.Future[ASGIApp] | None = None

    async def load(self) -> None:
        """Import MLflow and make its app, off the event loop; idempotent."""
        if self._app is None:
            loop = asyncio.get_running_loop()
            self._app = loop.create_future()
            try:
                # MLflow predicts on the loop's threads: as many as prompts may be in work or wait
                settings = self._service.settings
                loop.set_default_executor(ThreadPoolExecutor(self._service.engine.slots + settings.queue + 4))
                self._app.set_result(await asyncio.to_thread(self._make, loop))
            except Exception as error:
                self._app.set_exception(error)
        await asyncio.shield(self._app)

    def _make(self, loop: asyncio.AbstractEventLoop) -> ASGIApp:
        os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(int(self._service.settings.deadline) + MARGIN)
        from mlflow.models import Model
        from mlflow.pyfunc import PyFuncModel, scoring_server

        # its warnings name no field, and its errors repeat the request
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        return scoring_server.init(PyFuncModel(Model.load(self._folder), Predictor(self._service, loop)))

    async def answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that serving/bodies.py has found well formed."""
        await self.load()
        status = 200
        handed = False

        async def replay() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def pass_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if status < 400:
                await send(message)

        # another application: what the outer one has put into the scope is none of its business; it takes the content
        # type without any parameter but one, and in one spelling
        inner = {key: scope[key] for key in ASGI_KEYS if key in scope}
        inner["headers"] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._app.result()(inner, replay, pass_on)
        if status >= 400:
            refused = current.get().refusal
            if not isinstance(refused, Refused):
                refused = Refused(400, MISFIT)
            await refusal(MLFLOW_ROUTE, refused)(scope, receive, send)
