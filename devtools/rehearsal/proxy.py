"""The one way in: a CONNECT proxy on loopback that leads Azure's hosts to the emulator and refuses every other host.

    proxy = Proxy({"management.azure.com": 40001}, {"eastus2.inference.ml.azure.com": 40001}, refused=print)
    await proxy.start(port=0)

A client needs nothing but HTTPS_PROXY and the authority's file; what it says inside of the tunnel is not read here.
Plain http is refused, whichever host it is meant for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

#: Bytes that are carried at a time, and the longest head of a request.
PIECE = 256 * 1024
HEAD = 16 * 1024
#: Seconds that a client has to say where it wants to go.
PATIENCE = 30


class Proxy:
    """Tunnels to ports on loopback by the name of the host that is asked for."""

    def __init__(self, hosts: Mapping[str, int], suffixes: Mapping[str, int], refused: Callable[[str], None]) -> None:
        """
        Args:
            hosts: a port for each host.
            suffixes: a port for any one name below each of these.
            refused: is told every host that was asked for and is none of these.
        """
        self._hosts = dict(hosts)
        self._suffixes = dict(suffixes)
        self._refused = refused
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task] = set()

    async def start(self, port: int) -> int:
        """Listen on loopback; returns the port (0: any)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=PIECE)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more clients and end the tunnels there are."""
        if self._server:
            self._server.close()
        for task in list(self._tunnels):
            task.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    def port_of(self, host: str) -> int | None:
        """Where a host is answered; None: it is none of the emulator's."""
        name = host.lower().rstrip(".")
        return self._hosts.get(name) or self._suffixes.get(name.partition(".")[2])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tunnels.add(task)
        try:
            await self._tunnel(reader, writer)
        # a client that went away, or said nothing that could be read, has nobody to be told
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            self._tunnels.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        method, _, rest = head[:HEAD].decode("latin-1").partition(" ")
        target = rest.partition(" ")[0]
        if method != "CONNECT":
            host = target.partition("://")[2].partition("/")[0].rpartition("@")[2]
            if not host:
                await _refuse(writer, 405, f"{method} {target}: this proxy takes CONNECT (https) alone")
                return
            # plain http, such as to a virtual machine's own metadata service, leads out like any other way
            await asyncio.to_thread(self._refused, host if ":" in host else f"{host}:80")
            await _refuse(writer, 403, f"http://{host} is unreachable: the rehearsal stands for https alone")
            return
        host, _, port = target.rpartition(":")
        upstream = self.port_of(host) if port == "443" else None
        if upstream is None:
            await asyncio.to_thread(self._refused, target)
            await _refuse(writer, 403, f"{target}: is no host that the rehearsal stands for; it goes no further")
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", upstream, limit=PIECE)
        except OSError as error:
            await _refuse(writer, 502, f"{target}: what answers for it is not there ({error})")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        finally:
            far_writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes until it ends, and then that it ended."""
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    finally:
        # one side that is done leaves the other one open; one that broke is told by its own end
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


async def _refuse(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    reasons = {403: "Forbidden", 405: "Method Not Allowed", 502: "Bad Gateway"}
    body = f"phikit rehearsal: {text}\n".encode()
    writer.write(
        f"HTTP/1.1 {status} {reasons[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
    await writer.drain()
