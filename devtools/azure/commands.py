"""`phikit azure`: the commands of the Azure backend. What a command needs is imported when it runs.

phikit azure --help
"""

from __future__ import annotations

import importlib.util
import sys

import click

from devtools.azure import endpoint_commands, training_commands
from devtools.errors import FAILED, KitError
from devtools.examples import ExampleGroup


@click.group(cls=ExampleGroup)
def azure() -> None:
    """The same job, image and server in an Azure Machine Learning workspace.

    Which workspace, and everything else, is in .env (.env.example explains it). Each command asks before it spends,
    and goes on where it was when it is given again. `phikit rehearsal run -- phikit azure ...` does the same without an
    account.

    Examples:
      phikit azure check                                 who, where, what is missing, what it costs
      phikit azure train --recipe tiny_cpu
      phikit azure train --recipe phi3_5_mini_lora --data chats.jsonl --gpu
      phikit azure deploy
      phikit azure invoke "Who founded Microsoft?"
      phikit azure down                                  nothing left running
    """
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.ai") is None:
        raise KitError("Azure's packages are not installed here: make setup-azure")


@azure.command()
def check() -> None:
    """Say who you are on Azure, which workspace that is, what is missing, and what it costs an hour.

    Nothing is made. Exit code 1 if something that is needed is missing.

    Examples:
      phikit azure check
    """
    from devtools import tables
    from devtools.azure.check import can_train, examine
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    findings = examine(connect(Settings.load()))
    tables.show(["area", "", "found", "fix"], [[f.area, f.level, f.text, f.fix] for f in findings])
    sys.exit(0 if can_train(findings) else FAILED)


@azure.command()
@click.option("--gpu", is_flag=True, help="The variant on the GPU base.")
def image(gpu: bool) -> None:
    """Have the runtime image in the workspace: pushed and used by its digest, or built there from the same Dockerfile.

    Examples:
      phikit azure image
      PHIKIT_AZURE_IMAGE=build phikit azure image
    """
    from devtools.azure.image import environment
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    made = environment(connect(Settings.load()), gpu)
    click.echo(f"azureml:{made.name}:{made.version}")
    click.echo(made.image or "built by Azure when it is first used")


for command in (*training_commands.COMMANDS, *endpoint_commands.COMMANDS):
    azure.add_command(command)
