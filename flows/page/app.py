"""The web application: Gradio's page at /, health for whoever looks after it, the run's report, exports.

app = build(settings, history, Flow(settings.flow))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from flows.history import History, Unavailable
from flows.page import exports, model_card
from flows.page.events import connect
from flows.page.flow_client import Flow
from flows.page.guard import LOCAL, Guard, user_of
from flows.page.layout import page
from flows.page.settings import Settings
from flows.page.talk import Talk

HERE = Path(__file__).parent


def build(settings: Settings, history: History, flow: Flow) -> FastAPI:
    """The application over a store and a flow, both of which it closes in the end."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await flow.close()
        await asyncio.to_thread(history.close)

    app = FastAPI(title="phikit chat", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, logins=settings.logins, names=settings.names)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Alive."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether a question would be answered and kept; 503 with the reason when not."""
        reason = await flow.state()
        try:
            await asyncio.to_thread(history.list, next(iter(settings.logins), LOCAL), 1)
        except Unavailable as error:
            reason = reason or str(error)
        return JSONResponse({"status": reason or "ok"}, 503 if reason else 200)

    @app.get("/report")
    def report(run: str = "") -> Response:
        """The report of the run that is shown, or of another beside it."""
        file = model_card.served(settings.run, run)[0].report
        return FileResponse(file) if file else PlainTextResponse("This run has no report.\n", 404)

    app.include_router(exports.routes(history))
    blocks, parts = page(settings)
    with blocks:
        connect(blocks, parts, Talk(history, flow), flow, settings)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=user_of,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        run_history=False,
        mcp_server=False,
        enable_monitoring=False,
        # the machine's own fonts: Gradio's themes name some of Google's
        theme=gr.themes.Default(font="system-ui", font_mono="ui-monospace", primary_hue="blue", neutral_hue="slate"),
        css_paths=HERE / "style.css",
        head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
    )
