"""A connection to a receiver that answers nothing: what its kernel has taken counts as delivered.

By TCP, with or without TLS, or to a socket of this host.

The kernel says how much of what was sent is not acknowledged yet (`SIOCOUTQ`, tcp(7)). When that is nothing
and the peer has not closed, the peer's kernel has everything; the program behind it may not have read it.

**What a broken connection may have cost.** A peer that closes while it has unread data sends a reset, and one
that has read everything sends none (RFC 1122, 4.2.2.13). So an end of the stream (FIN) costs nothing, unless
a reset follows at once: there are programs that shut a connection down before they close it. A reset, or a
peer that is not heard of any more, may cost whatever its kernel held. That is bounded by the largest window
which it can advertise: 64 KiB shifted by the scale that it chose when the connection was made (RFC 7323, 2.3;
`TCP_INFO` tells it). Linux chooses the scale after the most memory that the buffer may ever take
(`tcp_rmem`), so that the bound is at most twice that. Deliveries with bytes among so many last ones are
`unconfirmed`. Not so where we close and the peer does not within a moment: it may come to them yet.

What cannot be told: once our side is closed, a FIN ends the connection, and a reset behind it is not seen (a
Linux does not even send one). So a peer of plain TCP that shuts down with data unread while we close looks as
if it had read it. One with TLS is told that we end before our side is closed.

**Whether the peer wants us.** With TLS 1.3 a handshake ends on our side before the peer has looked at our
certificate (RFC 8446, 2), and there are receivers that look at it after any handshake (rsyslog with GnuTLS).
Its kernel takes what is sent to a program that refuses us, which may even have read some of it. So nothing is
sent before the peer has said that it goes on: by a session ticket, which servers send once they have accepted
us (OpenSSL's and Go's do). Of one that sends none, a moment without a refusal has to do.
"""

from __future__ import annotations

import errno
import fcntl
import select
import struct
import termios
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

from logroute.sinks import Retryable
from logroute.sinks.failures import CERTIFICATE_REFUSED, cause_in_words
from logroute.sinks.streams import Opened

SILENCE_S = 60.0
"""How long the peer's kernel may say nothing to what was sent, or have no room, before it counts as gone."""
KEEPALIVE_S = 30
LAST_WORD_S = 0.2
"""How long after a FIN a reset may follow: the peer sends both without waiting for anything."""
SETTLE_S = 1.0
"""How long a peer with TLS that sends no session ticket may take to refuse us; once for each connection. A
refusal comes a round trip after the handshake, and what a busy peer needs to look at a certificate."""
CLOSE_S = 1.0
"""How long a peer may take to read the rest and close its side, once we have closed ours."""
FAREWELL_S = 0.2
"""How long a peer with TLS may take to heed our farewell, before we close our side as well."""

AFTER_HANDSHAKE = "right after the TLS handshake: does it refuse our certificate (`tls.cert`, `tls.key`)?"

# How often the kernel is asked: at first soon, because a peer nearby acknowledges at once.
FIRST_PAUSE_S = 0.0002
LONGEST_PAUSE_S = 0.05

_TCPI_OPTIONS, _TCPI_SCALES = 5, 6
"""Offsets in `struct tcp_info` (linux/tcp.h): flags of what was negotiated; two scales of four bits."""
_TCPI_OPT_WSCALE = 4
_WINDOW = 1 << 16


class Connection:
    """One connection. Its end is noted once, by whoever sees it first: `send`, `watch` or `close`."""

    def __init__(self, opened: Opened, peer: str) -> None:
        """Raises OSError where the connection has ended already."""
        self.peer = peer
        """How people call it, for errors."""
        self.failure = ""
        """Why it is not to be used any more."""
        self._stream = opened.stream
        self._socket = opened.socket
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLRDHUP)
        set_up(self._socket)
        self._window_bytes = largest_window(self._socket)
        self._lossy = False
        """Whether the failure may have cost what the peer had not read."""
        self._watching: trio.CancelScope | None = None
        self._watched = trio.Event()
        """Nobody watches any more."""
        self._closing = False
        """We have closed our side. Then a FIN ends all of it, and no reset can be seen behind it."""
        self._ended_at = 0.0
        # Invariant: (end in bytes sent, records) of all deliveries of which the peer's kernel may hold some.
        self._unread: deque[tuple[int, int]] = deque()
        self._sent_bytes = 0

    @classmethod
    async def of(cls, opened: Opened, peer: str) -> Connection:
        """A connection that was just made. Raises Retryable where it has ended already, or is refused."""
        try:
            if isinstance(opened.stream, trio.SSLStream):
                await _be_accepted(opened.stream, peer)
            return cls(opened, peer)
        except OSError as error:
            await trio.aclose_forcefully(opened.stream)
            raise Retryable(f"{peer}: cannot connect: {cause_in_words(error)}") from error
        except BaseException:
            await trio.aclose_forcefully(opened.stream)
            raise

    # --- what is known without waiting ------------------------------------------------------------------

    def take_unconfirmed(self) -> int:
        """Records that were delivered, and that its end may have cost; told once."""
        records = sum(records for _, records in self._unread) if self._lossy else 0
        if self.failure:
            self._unread.clear()
        return records

    def outstanding_bytes(self) -> int:
        """What the peer's kernel has not acknowledged."""
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(answer, "little" if struct.pack("=H", 1)[0] else "big")

    def usable(self) -> bool:
        """Whether the peer is still there; where it has closed or reset the connection, that is noted."""
        if self.failure:
            return False
        for _, events in self._poll.poll(0):
            number = self._socket.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_ERROR)
            # A FIN shuts one direction; a reset shuts both, though another call may have taken its error.
            if number or (events & select.POLLHUP and not self._closing):
                self._note(OSError(number or errno.ECONNRESET, ""))
            else:
                self._note(None)
        return not self.failure

    def _reset_after_all(self) -> bool:
        """Whether a reset has followed the peer's FIN, or nothing is to be learned any more."""
        # Once we have closed our side, a FIN shuts the other one, and looks like a reset here.
        if self._lossy or self._closing or self._socket.fileno() < 0:
            return True
        if any(events & select.POLLHUP for _, events in self._poll.poll(0)):
            self.failure, self._lossy = "the receiver has closed the connection with data unread", True
        return self._lossy

    def _note(self, error: OSError | None) -> None:
        """Its end, by an error or (None) because the peer has closed it."""
        if self.failure:
            return
        self._ended_at = trio.current_time()
        if error is None:
            self.failure = "the receiver has closed the connection"
        else:
            self.failure = f"the connection broke: {cause_in_words(error)}"
            self._lossy = True

    def _acknowledged(self, size_bytes: int, records: int) -> None:
        self._sent_bytes += size_bytes
        self._unread.append((self._sent_bytes, records))
        while self._unread and self._unread[0][0] <= self._sent_bytes - self._window_bytes:
            self._unread.popleft()

    # --- waiting ----------------------------------------------------------------------------------------

    async def send(self, data: bytes, records: int) -> None:
        """Send all of it, and wait until the peer's kernel has it.

        Raises Retryable if the connection ended before that. Then, and when it is cancelled, the connection
        is closed.
        """
        try:
            if self.usable():
                await self._stream.send_all(data)
                await _until(lambda: not self.usable() or not self.outstanding_bytes())
        except trio.BrokenResourceError as error:
            self._note(error.__cause__ if isinstance(error.__cause__, OSError) else None)
        except trio.ClosedResourceError:
            pass  # `watch` has seen its end, and noted it
        except BaseException:  # cancelled; who takes nothing may not have read what it had taken
            if not self.failure:
                self.failure, self._lossy = "the receiver takes nothing", self.outstanding_bytes() > 0
            await trio.aclose_forcefully(self._stream)
            raise
        # Closed by now: nobody knows whether before or after it had taken the last byte.
        if not self.usable():
            await self._hear_it_out()
            raise Retryable(f"{self.peer}: {self.failure}")
        self._acknowledged(len(data), records)

    async def watch(self) -> None:
        """Return when the connection has ended, or is about to be closed. What the receiver says is ignored.

        Cancelled, it leaves the connection as it is.
        """
        self._watched = trio.Event()
        try:
            with trio.CancelScope() as self._watching:
                await self._listen()
        finally:
            self._watched.set()

    async def _listen(self) -> None:
        try:
            while await self._stream.receive_some():
                pass
            if self.usable():  # so that a reset, whose error another call has taken, is not noted as a FIN
                self._note(None)
        except trio.BrokenResourceError as error:
            self._note(error.__cause__ if isinstance(error.__cause__, OSError) else None)
        except trio.ClosedResourceError:
            return
        await self._hear_it_out()

    async def _listen_no_more(self) -> None:
        """Have the stream for ourselves: TLS's farewell is an exchange."""
        if self._watching is not None:
            self._watching.cancel()
            await self._watched.wait()

    async def _hear_it_out(self) -> None:
        """Close a connection that has ended; after a FIN, not before it is known that no reset follows."""
        try:
            if self._unread:
                with trio.move_on_at(self._ended_at + LAST_WORD_S):
                    await _until(self._reset_after_all)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def close(self) -> None:
        """Close our side, and give the peer a moment to read the rest and close its own. Never raises."""
        if not self.usable():
            await self._hear_it_out()
            return
        try:
            if self._unread:
                await self._end_in_order()
        except OSError as error:  # it has ended just now
            self._note(error)
        finally:
            self.failure = self.failure or "closed"
            self._socket.close()  # which is not the stream's any more, once that has said farewell
            await trio.aclose_forcefully(self._stream)

    async def _end_in_order(self) -> None:
        """Raises OSError where the connection has ended."""
        with trio.move_on_after(CLOSE_S):
            await self._end_our_side()
            await _until(lambda: not self.usable())
        if self.failure:
            await self._hear_it_out()

    async def _end_our_side(self) -> None:
        """Raises OSError where the connection has ended."""
        if isinstance(self._stream, trio.SSLStream):
            # Who is told by TLS that we end closes first, and a reset can follow that. With our FIN before it
            # none could be seen (TIME-WAIT; RFC 9293, 3.3.2). Broken: it ends without a farewell of its own.
            await self._listen_no_more()
            with trio.move_on_after(FAREWELL_S):
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._stream.unwrap()
                await _until(lambda: not self.usable())
        if self.usable():
            self._closing = True
            self._socket.shutdown(trio.socket.SHUT_WR)


async def _be_accepted(stream: trio.SSLStream[trio.SocketStream], peer: str) -> None:
    """Wait until the peer has accepted us, as far as it says so: see the module. Raises Retryable."""
    refusal = ""

    async def hear() -> None:
        nonlocal refusal
        try:
            # Tickets are taken inside. It returns for what the peer's program says, which accepts us then.
            if not await stream.receive_some():
                refusal = f"the receiver has closed the connection {AFTER_HANDSHAKE}"
        except trio.BrokenResourceError as error:
            refusal = cause_in_words(error)
            if not refusal.startswith(CERTIFICATE_REFUSED):
                refusal = f"the connection broke ({refusal}) {AFTER_HANDSHAKE}"
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + SETTLE_S
        nursery.start_soon(hear)
        await _until(lambda: stream.session.has_ticket)
        nursery.cancel_scope.cancel()
    if refusal:
        raise Retryable(f"{peer}: {refusal}")


async def _until(done: Callable[[], bool]) -> None:
    """Ask again and again, at first soon: of what the kernel tells here there is no event."""
    pause_s = FIRST_PAUSE_S
    while not done():
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def largest_window(socket: trio.socket.SocketType) -> int:
    """Bytes that the peer's kernel can hold unread at most: see the module. None of a socket of this host's
    own, where what is not outstanding has been read (unix(7), SIOCINQ)."""
    if socket.family == trio.socket.AF_UNIX:
        return 0
    info = socket.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_INFO, 8)
    scaled = info[_TCPI_OPTIONS] & _TCPI_OPT_WSCALE
    # A bit-field: its first half is the low one, or where numbers begin with their high end the high one.
    scale = info[_TCPI_SCALES] & 15 if struct.pack("=H", 1)[0] else info[_TCPI_SCALES] >> 4
    return _WINDOW << (scale if scaled else 0)


def set_up(socket: trio.socket.SocketType) -> None:
    """Have the kernel notice a peer that is gone without a word."""
    if socket.family == trio.socket.AF_UNIX:
        return
    tcp = trio.socket.IPPROTO_TCP
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
    socket.setsockopt(tcp, trio.socket.TCP_KEEPIDLE, KEEPALIVE_S)
    socket.setsockopt(tcp, trio.socket.TCP_KEEPINTVL, KEEPALIVE_S // 3)
    socket.setsockopt(tcp, trio.socket.TCP_USER_TIMEOUT, int(SILENCE_S * 1000))
