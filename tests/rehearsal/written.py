"""What clients wrote to an emulator's storage, as Azurite's own log has it: its calls go past the emulator's record.

names = blobs(home)
"""

import re
from pathlib import Path

from devtools.rehearsal import ACCOUNT

#: Clients name the account in the host, the emulator itself in the path.
WRITTEN = re.compile(rf'"PUT /(?!{ACCOUNT}/)([^ ?"]+)\?(?!comp=lease|comp=metadata)[^"]*" 201')


def blobs(home: Path) -> list[str]:
    """Container and name of each blob, in the order of the calls; one that came in pieces is there for each."""
    return WRITTEN.findall((home / "azurite.log").read_text(encoding="utf-8"))
