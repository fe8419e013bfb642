"""Commands whose help shows examples as they are written, and the options that several of them share."""

from __future__ import annotations

import inspect

import click

BACKENDS = click.Choice(["auto", "docker", "venv"])
backend_option = click.option(
    "--backend",
    type=BACKENDS,
    default="auto",
    show_default=True,
    help="Where it runs: auto takes a container if a Docker engine answers, else the virtual environment.",
)


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
