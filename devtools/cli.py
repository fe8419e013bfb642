"""`phikit`: the kit's command line. What a command needs is imported when it runs, so that `phikit --help` is instant.

phikit --help
python -m devtools.cli train --help
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from devtools import model_commands, stack
from devtools.azure.commands import azure
from devtools.chat import chat
from devtools.errors import BAD_INPUT, FAILED, INTERRUPTED, BadInput, KitError
from devtools.examples import ExampleGroup, backend_option, training_options
from devtools.rehearsal.commands import rehearsal


@click.group(cls=ExampleGroup, context_settings={"max_content_width": 120})
@click.version_option(package_name="phikit")
def cli() -> None:
    """Fine-tune a Phi model on your own machine, then, unchanged, on Azure.

    Examples:
      phikit train                                     the sample data, the small model, a report
      phikit train --data chats.jsonl --on-bad drop    your own conversations
      phikit serve                                     ask the model over HTTP
      phikit up                                        chat with it in the browser
      phikit doctor                                    what this machine lacks, and how to mend it
    """


@cli.command()
@training_options
@click.option(
    "--network", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True, help="For the job."
)
@click.option("--gpu", is_flag=True, help="Use the GPU image and this machine's GPUs.")
@backend_option
def train(backend: str, overrides: tuple[str, ...], **options: object) -> None:
    """Fine-tune a model and report how it answered before and after.

    The data is prepared if it is not yet; the job is training/job.yaml. A run that was stopped or killed goes on from
    its last checkpoint when the same command is given again.

    Examples:
      phikit train
      phikit train --recipe tiny_cpu --set num_train_epochs=10 --set learning_rate=1e-3
      phikit train --data chats.jsonl --on-bad drop --name chats
      phikit train --data HuggingFaceH4/ultrachat_200k --recipe phi3_5_mini_lora --gpu
      phikit train --model ./my-phi --backend venv

    Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped after a checkpoint, 130 Ctrl-C.
    """
    from devtools.local import choose
    from devtools.settings import Settings
    from devtools.training_run import Request, train

    settings = Settings.load()
    chosen = choose(settings, backend)
    click.echo(chosen.reason, err=True)
    sys.exit(train(Request(overrides=overrides, **options), chosen, settings))


cli.add_command(model_commands.serve)
cli.add_command(model_commands.export)
for command in (stack.up, stack.down, stack.logs, chat, azure, rehearsal):
    cli.add_command(command)


@cli.group()
def data() -> None:
    """Prepare and check chat datasets; `phikit data prepare --help` shows every option.

    Examples:
      phikit data prepare chats.jsonl --out data/chats
      phikit data prepare ultrachat
      phikit data check data/chats
    """


def _pass_through(verb: str, arguments: Sequence[str]) -> int:
    from devtools.settings import ROOT, Settings

    if any(argument in ("-h", "--help") for argument in arguments):
        import subprocess

        # on the host, whatever is installed there: help needs nothing but Python
        program = [sys.executable, str(ROOT / "training" / "prepare_data.py"), verb, "--help"]
        return subprocess.run(program, check=False).returncode
    from devtools.data import preparation
    from devtools.local import choose

    settings = Settings.load()
    task = preparation(arguments, ROOT / "training", settings, verb)
    return choose(settings).run(task)


AS_THEY_ARE = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


@data.command("prepare", context_settings=AS_THEY_ARE, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def data_prepare(arguments: tuple[str, ...]) -> None:
    """Turn a dataset into checked train and test files."""
    sys.exit(_pass_through("prepare", arguments))


@data.command("check", context_settings=AS_THEY_ARE, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def data_check(arguments: tuple[str, ...]) -> None:
    """The same checks, nothing written."""
    sys.exit(_pass_through("check", arguments))


@cli.command()
def doctor() -> None:
    """Look this machine over: Python, Docker, GPU, disk, memory, ports, settings; each gap with its fix.

    Exit code 1 if `phikit train` can run neither in a container nor in the virtual environment.

    Examples:
      phikit doctor
    """
    from devtools import tables
    from devtools.doctor import can_train, examine
    from devtools.settings import Settings

    findings = examine(Settings.load())
    tables.show(["area", "", "found", "fix"], [[f.area, f.level, f.text, f.fix] for f in findings])
    sys.exit(0 if can_train(findings) else FAILED)


@cli.command()
@backend_option
def backend(backend: str) -> None:
    """Print which backend would be taken (docker or venv), and on stderr why.

    Examples:
      phikit backend
    """
    from devtools.local import choose
    from devtools.settings import Settings

    chosen = choose(Settings.load(), backend)
    click.echo(chosen.reason, err=True)
    click.echo(chosen.name)


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="On the loopback address.")
@click.option("--open/--no-open", "open_page", default=True, show_default=True, help="Open it in the browser.")
@backend_option
def mlflow(port: int, open_page: bool, backend: str) -> None:
    """Open MLflow's own page over the runs that were tracked on this machine, until Ctrl-C.

    Examples:
      phikit mlflow
      phikit mlflow --port 5050 --no-open
    """
    from devtools.local import choose
    from devtools.settings import Settings
    from devtools.tracking_page import serve

    settings = Settings.load()
    chosen = choose(settings, backend)
    click.echo(chosen.reason, err=True)
    sys.exit(serve(chosen, settings, port, open_page))


@cli.group()
def image() -> None:
    """The image that trainings run in.

    Examples:
      phikit image build
    """


@image.command("build")
@click.option("--gpu", is_flag=True, help="The variant on the GPU base.")
def image_build(gpu: bool) -> None:
    """Build the runtime image through compose.yaml.

    Where the base image cannot be pulled, `make stand-in-base` makes one that can take its place.

    Examples:
      phikit image build
      BASE_IMAGE=phikit-base:stand-in phikit image build
    """
    from devtools.image import build
    from devtools.settings import Settings

    build("phikit-runtime:gpu" if gpu else "phikit-runtime:cpu", Settings.load())


@cli.group(invoke_without_command=True)
@click.pass_context
def runs(context: click.Context) -> None:
    """List the runs below runs/, newest first, with the exact match before and after.

    Examples:
      phikit runs
      phikit runs rm tiny_cpu-20261122-101500
    """
    if context.invoked_subcommand is None:
        from devtools import tables
        from devtools.runs import Runs
        from devtools.settings import ROOT

        rows = [
            [run.name, run.state, tables.score(run.metrics, "before"), tables.score(run.metrics, "after")]
            for run in Runs(ROOT / "runs").all()
        ]
        tables.show(["run", "state", "exact match before", "after"], rows)


@runs.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def runs_rm(names: tuple[str, ...]) -> None:
    """Delete runs, their reports and models; runs/latest moves to the newest whole run that is left.

    Examples:
      phikit runs rm tiny_cpu-20261122-101500
    """
    from devtools.runs import HERE, Runs
    from devtools.settings import ROOT

    runs = Runs(ROOT / "runs")
    for name in names:
        run = runs.get(name)
        away = "" if run.is_whole or run.where == HERE else run.where
        runs.remove(name)
        if away:
            click.echo(f"runs/{name}: was begun {away}, where its job may go on: phikit azure list", err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run a command, also where nobody reads its output to the end (`phikit azure logs | head`)."""
    try:
        try:
            _run(arguments)
        finally:
            # what is still held back goes out here: when Python ends, an error could no longer be caught
            sys.stdout.flush()
    except BrokenPipeError:
        # Python tries once more as it ends (its documentation: "Note on SIGPIPE"); click, too, says 1 then
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _run(arguments: Sequence[str] | None) -> None:
    """Run a command; what goes wrong as foreseen is lines on stderr and an exit code."""
    try:
        cli.main(args=arguments, prog_name="phikit", standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BadInput as error:
        for finding in error.findings:
            click.echo(f"error: {finding}", err=True)
        sys.exit(BAD_INPUT)
    except KitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
