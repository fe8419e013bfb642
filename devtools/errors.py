"""What the command line says when something is wrong: one line a finding on stderr, an exit code, no traceback.

Raised anywhere under devtools/ and turned into lines by `devtools.cli.main`; the codes are those of training/errors.py,
repeated here because the command line reads training's files and runs its programs, but imports none of its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

OK = 0
FAILED = 1
BAD_INPUT = 2
#: A training that was stopped by SIGTERM after a checkpoint; the same command goes on from there.
STOPPED = 75
#: A program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


class KitError(Exception):
    """The machine or a program failed; the message says what to do about it. Exit code 1."""

    code = FAILED


class BadInput(KitError):
    """Findings about what the user gave, each naming the file, option or field, and the fix. Exit code 2."""

    code = BAD_INPUT

    def __init__(self, findings: str | Sequence[str]) -> None:
        self.findings = [findings] if isinstance(findings, str) else list(findings)
        super().__init__("\n".join(self.findings))


def nearest(word: str, known: Iterable[str]) -> str:
    """End a finding about an unknown name: the nearest known one, or the list of all of them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(names)}" if names else "none is known"
