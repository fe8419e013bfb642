"""What clients wrote to an emulator's storage.

names = blobs(home)
"""

from pathlib import Path

from devtools.rehearsal import BLOB_HOST, report

#: Calls that write no content.
ASIDE = ("lease", "metadata")


def blobs(home: Path) -> list[str]:
    """Container and name of each blob, in the order of the calls; one that came in pieces is there for each."""
    return [
        call["path"]
        for call in report.calls(home)
        if (call["method"], call["host"], call["status"]) == ("PUT", BLOB_HOST, 201)
        and call["query"].get("comp") not in ASIDE
    ]
