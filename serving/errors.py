"""What can go wrong, and what is said about it: one line a finding, never a prompt, never a key.

BadInput ends the program with exit code 2; Refused is an HTTP answer.
"""

from __future__ import annotations

from collections.abc import Sequence


class BadInput(Exception):
    """The server was told something it cannot use; each finding names the setting or file and the fix."""

    def __init__(self, findings: str | Sequence[str]) -> None:
        self.findings = [findings] if isinstance(findings, str) else list(findings)
        super().__init__("\n".join(self.findings))


class Refused(Exception):
    """A request that is not answered, or no longer.

    Args:
        status: 4xx, or 503 where no engine is there to answer.
        message: what is wrong and what would be right; it names `field`, and never repeats what the client wrote.
        field: path of the field in the request body, dots between its parts.
        retry_after: whole seconds after which it is worth another try.
    """

    def __init__(self, status: int, message: str, field: str | None = None, retry_after: int | None = None) -> None:
        self.status = status
        self.message = message
        self.field = field
        self.retry_after = retry_after
        super().__init__(message)
