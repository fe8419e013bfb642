"""What goes wrong because of the input, the machine or the numbers, said in one line each.

Entry points wrap their `main` in `exit_code`: a `BadInput` prints its findings and exits with 2, a `RunFailed` prints
its line and exits with 1; neither shows a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

OK = 0
FAILED = 1
BAD_INPUT = 2
#: sysexits.h EX_TEMPFAIL: stopped by SIGTERM after a checkpoint; the same command goes on from there.
STOPPED = 75
#: The shell's convention for a program ended by Ctrl-C: 128 + SIGINT.
INTERRUPTED = 130


class BadInput(Exception):
    """One or more findings about what the user gave; each names the file, the line or field, and the fix."""

    def __init__(self, findings: str | Sequence[str]) -> None:
        self.findings = [findings] if isinstance(findings, str) else list(findings)
        super().__init__("\n".join(self.findings))


class RunFailed(Exception):
    """The input was fine, the run was not (memory, disk, NaN); the message says what to change."""


def exit_code(main: Callable[[], int | None]) -> int:
    """Run an entry point and turn its expected failures into lines on stderr and an exit code."""
    try:
        return main() or OK
    except BadInput as error:
        for finding in error.findings:
            print(f"error: {finding}", file=sys.stderr)
        return BAD_INPUT
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
