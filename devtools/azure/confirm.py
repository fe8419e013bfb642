"""Questions before anything is spent or deleted.

confirm("a node costs 3.67 USD an hour; go on?", yes=False)
"""

from __future__ import annotations

import sys

import click

from devtools.errors import BadInput, KitError


def confirm(question: str, yes: bool) -> None:
    """Return when the answer is yes, or `yes` says so beforehand.

    Raises:
        BadInput: nobody is there to be asked.
        KitError: the answer is no.
    """
    if yes:
        click.echo(question.rpartition(";")[0] or question, err=True)
        return
    if not sys.stdin.isatty():
        raise BadInput(f"{question} (nobody is at a terminal to answer: say --yes)")
    if not click.confirm(question, err=True):
        raise KitError("nothing was done")
