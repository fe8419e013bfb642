"""The chat page in containers, in front of the local model or of the managed endpoint.

phikit chat                       # as phikit up
phikit chat --target azure        # http://127.0.0.1:7861
"""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from devtools import stack
from devtools.connections import LOOPBACK
from devtools.errors import BadInput
from devtools.examples import Examples
from devtools.settings import Settings

AZURE = ("--profile", "azure")
PORT = ("PHIKIT_AZURE_CHAT_PORT", "7861")


@click.command(cls=Examples)
@click.option(
    "--target", type=click.Choice(["local", "azure"]), default="local", show_default=True, help="Which model answers."
)
@click.option("--endpoint", help="Of azure: the endpoint's name.  [default: PHIKIT_AZURE_ENDPOINT]")
@click.pass_context
def chat(context: click.Context, target: str, endpoint: str | None) -> None:
    """Start the chat page and all that it needs, in containers; `phikit down` ends it.

    The managed endpoint's address and key are fetched now and go into the containers' environment, and into no file.

    Examples:
      phikit chat
      phikit chat --target azure
    """
    if target == "local":
        context.invoke(stack.up, compare=False)
        return
    settings = Settings.load()
    if settings.https_proxy and urlsplit(settings.https_proxy).hostname in LOOPBACK:
        raise BadInput(
            "HTTPS_PROXY: is on this machine's loopback, which containers do not reach; without containers: "
            "phikit azure connect -- make flow-serve, and make chat"
        )
    from devtools.azure.connection import variables
    from devtools.azure.workspace import connect

    told = variables(connect(settings), endpoint)
    stack.ensure_images(settings)
    stack.start(settings, *AZURE, services=("chat-azure",), **told)
    click.echo(f"chat on http://127.0.0.1:{stack.port(settings, *PORT)}")
