"""Commands whose help shows examples as they are written, and the options that several of them share."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import click

BACKENDS = click.Choice(["auto", "docker", "venv"])
backend_option = click.option(
    "--backend",
    type=BACKENDS,
    default="auto",
    show_default=True,
    help="Where it runs: auto takes a container if a Docker engine answers, else the virtual environment.",
)


def training_options(command: Callable) -> Callable:
    """What a training is asked for, wherever it runs: the options of the same names in training_run.Request."""
    options = (
        click.option(
            "--recipe", default="tiny_cpu", show_default=True, help="A name in training/recipes, or a YAML file."
        ),
        click.option(
            "--data",
            help="A prepared folder, or a source to prepare: a file, a folder, a hub dataset.  [default: data]",
        ),
        click.option(
            "--model",
            default="recipe",
            show_default=True,
            help="A hub model or a model folder instead of the recipe's.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable."
        ),
        click.option(
            "--name",
            help="The run's folder below runs/.  [default: the unfinished run of the same inputs, or a new one]",
        ),
        click.option(
            "--on-bad",
            type=click.Choice(["fail", "drop"]),
            default="fail",
            show_default=True,
            help="Bad rows in the data.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Examples(click.Command):
    """A command whose docstring is shown as it is written, examples and all."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the docstring unwrapped, indented."""
        formatter.write_paragraph()
        for line in inspect.cleandoc(self.help or "").splitlines():
            formatter.write(f"  {line}".rstrip() + "\n")


class ExampleGroup(Examples, click.Group):
    """A group with the same help, and commands with the same help."""

    command_class = Examples
    group_class = type
