"""HTTP/1.1 without TLS, for an endpoint next door: a transport under the `httpx` client.

An endpoint on this machine is asked hundreds of times a second, and competes with us for processor time. Of what a
call takes, the stock transport of httpx takes most; this one does the same with asyncio's protocols and h11 for less
than half (`python -m benchmarks.client`). It has no proxies, no TLS and no HTTP/2: where those are needed the stock
transport is used.

An answer is read whole, and not beyond `most` bytes; time limits are the caller's, but for connecting.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import h11

_LONGEST_HEAD = 100 << 10
"""Bytes of an answer's status line and headers."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time.

    `idle_since` is on the monotonic clock; `heard` tells whether anything has come since the last question.
    """

    def __init__(self, most: int, lost: Callable[[_Connection], None]) -> None:
        self.idle_since = 0.0
        self.heard = False
        self._most = most
        self._lost = lost
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._stream: asyncio.Transport | None = None
        self._answer: asyncio.Future[_Answer] | None = None
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._size = 0

    @property
    def usable(self) -> bool:
        """Whether another exchange can begin."""
        return self._stream is not None and not self._stream.is_closing() and self._http.our_state is h11.IDLE

    @property
    def disturbed(self) -> bool:
        """Whether something has come that nobody has asked for: the end, or what looks like the next answer.

        It may lie in the socket still, where the event loop has had no turn to read it.
        """
        assert self._stream is not None
        socket = self._stream.get_extra_info("socket")
        if socket is None or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def exchange(self, request: h11.Request, content: bytes) -> _Answer:
        """Send and read the answer.

        Raises:
            OSError: the connection broke. h11.RemoteProtocolError: what came is not HTTP.
        """
        assert self._stream is not None
        self._head, self._body, self._size, self.heard = None, [], 0, False
        self._answer = asyncio.get_running_loop().create_future()
        events = [request, h11.Data(content), h11.EndOfMessage()] if content else [request, h11.EndOfMessage()]
        pieces = [piece for event in events for piece in self._http.send_with_data_passthrough(event) or ()]
        self._stream.write(b"".join(pieces))
        try:
            return await self._answer
        except BaseException:
            self._stream.abort()
            raise
        finally:
            self._answer = None

    def abort(self) -> None:
        """Close without further ado."""
        if self._stream is not None:
            self._stream.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._stream = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody has asked
            self.abort()
            return
        self.heard = True
        self._http.receive_data(data)
        self._read()

    def eof_received(self) -> None:
        if not self.heard:
            self._fail(_closed())
        elif self._answer is not None:
            self._http.receive_data(b"")
            self._read()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or _closed())
        self._lost(self)

    def _read(self) -> None:
        try:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.ConnectionClosed):
                    self._fail(_closed())
                    return
                if isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.Data):
                    self._body.append(bytes(event.data))
                    self._size += len(event.data)
                if isinstance(event, h11.EndOfMessage) or self._size > self._most:
                    self._finish(whole=isinstance(event, h11.EndOfMessage))
                    return
        except h11.RemoteProtocolError as error:
            self._fail(error)

    def _finish(self, whole: bool) -> None:
        head, answer = self._head, self._answer
        assert head is not None
        if answer is not None and not answer.done():
            headers = list(head.headers.raw_items())
            answer.set_result(_Answer(head.status_code, bytes(head.reason), headers, b"".join(self._body)))
        self._head, self._body = None, []
        both_done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if whole and both_done and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
        else:
            self.abort()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()


def _closed() -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError("the server closed the connection")


class Wire:
    """The transport: connections are kept for `keep` seconds, and the one used last is used first.

    Args:
        httpx: the module whose client this is for (`httpx` or `httpx2`): its responses are given, its errors raised.
        connect_timeout: seconds.
        keep: seconds that a connection is kept without use.
        most: bytes of an answer's body. Of a longer one a little more than these are handed out, and no more read.
    """

    def __init__(self, httpx: Any, *, connect_timeout: float, keep: float, most: int) -> None:
        self._httpx = httpx
        self._connect_timeout = connect_timeout
        self._keep = keep
        self._most = most
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # asyncio closes the sockets in its next round

    async def handle_async_request(self, request: Any) -> Any:
        """One exchange: what httpx asks of a transport.

        Raises:
            httpx.TransportError: no connection, a broken one, or an answer that is not HTTP.
        """
        url = request.url
        content = await request.aread()
        try:
            asked = h11.Request(method=request.method, target=url.raw_path, headers=request.headers.raw)
        except h11.LocalProtocolError as error:
            raise self._httpx.LocalProtocolError(str(error)) from error
        try:
            connection, answer = await self._exchanged(asked, content, url.host, url.port or 80)
        except OSError as error:
            raise self._httpx.ReadError(str(error)) from error
        except h11.RemoteProtocolError as error:
            raise self._httpx.RemoteProtocolError(str(error)) from error
        if connection.usable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        return self._httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=self._httpx.ByteStream(answer.body),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": answer.reason},
        )

    async def _exchanged(self, asked: h11.Request, content: bytes, host: str, port: int) -> tuple[_Connection, _Answer]:
        if (kept := self._kept()) is not None:
            try:
                return kept, await kept.exchange(asked, content)
            except (OSError, h11.RemoteProtocolError):
                if kept.heard:
                    raise
            # The server closed it as we were about to ask, which is nobody's fault: it goes on a connection of its own.
        connection = await self._connect(host, port)
        return connection, await connection.exchange(asked, content)

    def _kept(self) -> _Connection | None:
        oldest = time.monotonic() - self._keep
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest and not connection.disturbed:
                return connection
            connection.abort()
        return None

    async def _connect(self, host: str, port: int) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._most, self._open.discard), host, port, happy_eyeballs_delay=0.25
                )
        except TimeoutError as error:
            raise self._httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise self._httpx.ConnectError(str(error)) from error
        self._open.add(connection)
        return connection
