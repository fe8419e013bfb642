"""compose.yaml's services as one thing: started with the newest run, asked what they say, ended.

phikit up                         # MLflow's page, the scoring server, the flow, the chat page
phikit logs scoring --follow
phikit down
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click

from devtools.errors import INTERRUPTED, BadInput, KitError, nearest
from devtools.examples import Examples
from devtools.settings import ROOT, Settings, inherited

#: Where a person looks: what it is, the variable with its port on this machine, the port without one.
PAGES = {"chat": ("PHIKIT_CHAT_PORT", "7860"), "MLflow's page": ("PHIKIT_MLFLOW_PORT", "5000")}
COMPARE = ("--profile", "compare")
EVERY = ("--profile", "*")
RUNTIME = "phikit-runtime:cpu"
#: Lines of a service that did not start.
SHOWN = 8


@click.command(cls=Examples)
@click.option("--compare", is_flag=True, help="The model as it was before, too, to compare answers with.")
def up(compare: bool) -> None:
    """Start the chat and all that it needs, in containers, over the newest run.

    On a checkout without a run, a tiny model is trained first. Given again after another training, it serves that one.

    Examples:
      phikit up
      phikit up --compare
    """
    settings = Settings.load()
    ensure_images(settings)
    told = {"PHIKIT_SERVED": served(settings)} | ({"PHIKIT_CHAT_COMPARE": "1"} if compare else {})
    start(settings, *(COMPARE if compare else ()), **told)
    pages = (f"{name} on http://127.0.0.1:{port(settings, *of)}" for name, of in PAGES.items())
    click.echo(", ".join(pages))


@click.command(cls=Examples)
def down() -> None:
    """End what `phikit up` and `phikit chat` started; conversations stay.

    Examples:
      phikit down
    """
    if compose(Settings.load(), *EVERY, "down").returncode:
        raise KitError("docker compose down: failed; what it said is above")


@click.command(cls=Examples)
@click.argument("service", required=False)
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C.")
def logs(service: str | None, follow: bool) -> None:
    """Print what the services say, or one of them.

    Examples:
      phikit logs
      phikit logs scoring --follow
    """
    settings = Settings.load()
    named = compose(settings, *EVERY, "config", "--services", quiet=True).stdout.split()
    if service and service not in named:
        raise BadInput(f"SERVICE {service}: there is no such service; {nearest(service, named)}")
    command = [*EVERY, "logs", "--timestamps", *(["--follow"] if follow else []), *([service] if service else [])]
    try:
        sys.exit(compose(settings, *command).returncode)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def start(settings: Settings, *profile: str, services: tuple[str, ...] = (), **told: str) -> None:
    """Start services and wait until they are healthy.

    Args:
        profile: compose's own options before its command.
        services: none: all of the profile.
        told: further variables for compose.yaml, which may hold secrets.

    Raises:
        KitError: with the services that did not start, after the end of what each said.
    """
    if compose(settings, *profile, "up", "--wait", *services, **told).returncode == 0:
        return
    listed = compose(settings, *EVERY, "ps", "--all", "--format", "json", quiet=True).stdout.splitlines()
    failed = [found for found in map(json.loads, listed) if found["ExitCode"] or found["Health"] == "unhealthy"]
    for found in failed:
        name = found["Service"]
        click.echo(f"the end of what {name} says:", err=True)
        compose(settings, *EVERY, "logs", "--no-log-prefix", "--tail", str(SHOWN), name, to=sys.stderr)
    if failed:
        ends = (
            f"{found['Service']} {'ended with ' + str(found['ExitCode']) if found['ExitCode'] else 'is not healthy'}"
            for found in failed
        )
        raise KitError(f"{', '.join(ends)}; all that it says: make logs SERVICE={failed[0]['Service']}")
    raise KitError("docker compose up: failed; what it said is above")


def ensure_images(settings: Settings) -> None:
    """Have the images of the stack; raises KitError where one cannot be built."""
    from devtools import image
    from devtools.local import engine

    if shutil.which("docker") is None or image.compose_version() is None:
        raise KitError(
            "docker compose is missing: install Docker with it; or without Docker: make flow-serve, make chat"
        )
    image.ensure(engine(settings), RUNTIME, settings)
    if compose(settings, "build", "--quiet", "flow", "chat").returncode:
        raise KitError("the images of the flow and the page could not be built; what docker compose said is above")


def served(settings: Settings, root: Path = ROOT) -> str:
    """A name of what would be served now: another one after another training or export, so that compose notices."""
    model = root / Path(settings.serve_model or "runs/latest/model").expanduser()
    newest = max((file.stat().st_mtime_ns for file in model.glob("artifacts/*")), default=0)
    return f"{model.resolve()}@{newest}"


def port(settings: Settings, variable: str, default: str) -> str:
    """The port on this machine that a variable names."""
    return settings.environ().get(variable, default)


def compose(
    settings: Settings, *arguments: str, quiet: bool = False, to: object = None, **told: str
) -> subprocess.CompletedProcess:
    """Run `docker compose` to its end; `quiet`: its output is returned instead of shown, `to`: where else it goes."""
    if shutil.which("docker") is None:
        raise KitError("docker: there is no such program; install Docker, or without it: make flow-serve, make chat")
    return subprocess.run(
        ["docker", "compose", *arguments],
        cwd=ROOT,
        env=inherited() | settings.environ() | told,
        stdout=subprocess.PIPE if quiet else to,
        text=True,
        check=False,
    )
