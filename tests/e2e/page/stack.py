"""What runs behind a tab."""

from dataclasses import dataclass
from pathlib import Path

from tests.serving.server import Server


@dataclass(frozen=True)
class Stack:
    """What runs: the page's address, the flow's, and the scoring server."""

    address: str
    flow: str
    scoring: Server | None
    folder: Path
