"""What the servers that tasks start on this machine have in common: a free port, and word once they answer."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser

from devtools.settings import has_display

LOOPBACK = "127.0.0.1"
#: Seconds between two looks at whether a server answers.
PAUSE = 0.3


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port of that address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # as servers do: connections that were closed a moment ago do not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(host: str, port: int) -> str:
    """The address at which this machine reaches a server that listens on `host`; all addresses include loopback."""
    if host in ("0.0.0.0", "::"):
        host = LOOPBACK if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(what: str, url: str, probe: str, seconds: float, *, open_page: bool = False) -> None:
    """Say where a server is as soon as `url` + `probe` answers with success: in the background, for so long at most."""

    def look() -> None:
        # this machine's own servers are not behind a proxy
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                with opener.open(f"{url}{probe}", timeout=2):
                    break
            except (urllib.error.URLError, http.client.HTTPException, OSError):
                time.sleep(PAUSE)
        else:
            return
        print(f"\n{what}: {url}   (Ctrl-C ends it)\n", file=sys.stderr, flush=True)
        if open_page and has_display():
            webbrowser.open(url)

    threading.Thread(target=look, name="announce", daemon=True).start()
