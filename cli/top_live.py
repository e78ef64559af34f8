"""The live screen of `logroute top`: looks at the daemon, keys, signals and painting, each a task.

Whoever changes what is to be seen says so, and the painter paints the newest of it: on a slow line some
pictures are left out, and none waits.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Literal

import trio
from rich.text import Text

from logroute.api.client import ApiError, NoDaemon, in_path
from logroute.api.letters import Page
from logroute.cli.top import Asker
from logroute.cli.top_detail import Details, detail_lines
from logroute.cli.top_rates import Look, Picture, picture_of, same_daemon
from logroute.cli.top_terminal import Terminal, keys_of
from logroute.cli.top_view import HELP, ORDERS, Chosen, help_screen, in_order, last_first, screen, scrolled

ANSWERS_WITHIN_S = 5.0
"""After so long it is said that the daemon does not answer, and it is asked anew."""
ESCAPE_S = 0.1
"""So long the rest of a key's sequence may take on a slow line."""
MESSAGE_S = 6.0
LETTERS = 20

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)

Where = Literal["routes", "detail", "help"]


def watch(asker: Asker, first: Look, every_s: float) -> int:
    """Until somebody quits; the exit code."""
    terminal = Terminal(sys.stdin.fileno(), sys.stdout.fileno())
    return trio.run(Live(asker, first, every_s, terminal).run)


class Live:
    """What is seen, and what changes it."""

    def __init__(self, asker: Asker, first: Look, every_s: float, terminal: Terminal) -> None:
        self._asker = asker
        self._every_s = every_s
        self._terminal = terminal
        self._look = first
        self.picture: Picture = picture_of(None, first)
        self.chosen = Chosen()
        self.where: Where = "routes"
        self._first = 0
        """The first line of a page that is longer than the screen."""
        self._details: Details | None = None
        self._details_for: tuple[object, ...] = ()
        self._changed = trio.Event()
        self._look_again = trio.Event()
        self._message_until = 0.0
        self._code = 0
        self._select(0)

    async def run(self) -> int:
        # In this order: from when the terminal is ours on, no signal ends us without giving it back.
        with trio.open_signal_receiver(*_SIGNALS) as signals, self._terminal.entered():
            await self._run(signals)
        return self._code

    async def _run(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._obey, signals)
            nursery.start_soon(self._look_on)
            nursery.start_soon(self._paint_on)
            nursery.start_soon(self._read_keys)

    # --- the daemon -----------------------------------------------------------------------------------

    async def _look_on(self) -> None:
        # The second look soon: there are no rates before.
        pause = min(0.5, self._every_s)
        while True:
            with trio.move_on_after(pause):
                await self._look_again.wait()
            self._look_again = trio.Event()
            pause = self._every_s
            with trio.move_on_after(ANSWERS_WITHIN_S) as waiting:
                await self._look_once()
            if waiting.cancelled_caught:
                # What is on the way may come in time or not: nobody waits for it.
                self._asker = self._asker.another()
                self._gone("the daemon does not answer; trying again")
            if self._message_until < trio.current_time():
                self.chosen.message = ""
            self._to_paint()

    async def _look_once(self) -> None:
        try:
            look = await trio.to_thread.run_sync(self._asker.look, abandon_on_cancel=True)
        except (NoDaemon, ApiError, ValueError) as error:
            self._gone(f"trying again: {error}")
            return
        self.chosen.trouble = ""
        before, self._look = self._look, look
        if not same_daemon(before, look):
            self._say(f"the daemon was started anew, as process {look.stats.daemon.pid}")
        self.picture = picture_of(before, look)
        if self.chosen.route not in self.picture.routes:
            self._select(0)
        self._want_details()

    def _gone(self, why: str) -> None:
        self.chosen.trouble = why

    def _want_details(self) -> None:
        """Ask for what there is of the open route, where it may have changed."""
        name = self.chosen.route
        route = self.picture.routes.get(name)
        if self.where != "detail" or route is None:
            return
        books = route.books
        key = (name, self.picture.began, books.dead_letters, books.rejected, books.dead_letters_dropped)
        if self._details is None or self._details.route != name:
            self._details = Details(name)
        if key != self._details_for:
            self._details_for = key
            self._nursery.start_soon(self._get_details, name)

    async def _get_details(self, name: str) -> None:
        def ask() -> Details:
            details = Details(name)
            with self._asker.client() as client:
                path = f"/v1/routes/{in_path(name)}"
                try:
                    details.letters = client.get(path + "/deadletters", Page, newest="true", count=LETTERS)
                except ApiError as error:
                    details.letters_trouble = str(error)
                with suppress(ApiError):
                    details.settings = client.get(path, dict[str, Any])
            return details

        try:
            details = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        except (NoDaemon, ValueError) as error:
            details = Details(name, letters_trouble=str(error))
        if self.chosen.route == name:
            self._details = details
            self._to_paint()

    async def _steer(self, what: Literal["pause", "resume"]) -> None:
        """Have the daemon do so with the chosen route; its answer is said."""
        name = self.chosen.route

        def ask() -> str:
            with self._asker.client() as client:
                try:
                    client.ask("POST", f"/v1/routes/{in_path(name)}/{what}", dict[str, Any])
                except ApiError as error:
                    if not 200 <= client.status < 300:  # one without a body is an answer, too
                        return f"cannot {what} {name}: {error}"
            return f"{name}: {what}d"

        self._say(f"{what} {name} …")
        try:
            self._say(await trio.to_thread.run_sync(ask, abandon_on_cancel=True))
        except (NoDaemon, ValueError) as error:
            self._say(f"cannot {what} {name}: {error}")
        self._look_again.set()

    # --- keys and signals -----------------------------------------------------------------------------

    async def _read_keys(self) -> None:
        rest = b""
        fd = self._terminal.fd
        while True:
            with trio.move_on_after(ESCAPE_S if rest else float("inf")) as waiting:
                await trio.lowlevel.wait_readable(fd)
            if waiting.cancelled_caught:
                keys, rest = (["escape"] if rest == b"\x1b" else []), b""
            else:
                try:
                    data = os.read(fd, 1024)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:  # the terminal is gone
                    self._end(1)
                    return
                keys, rest = keys_of(rest + data)
            for key in keys:
                self.press(key)

    def press(self, key: str) -> None:
        """What a key does, in one step."""
        if key in ("q", "Q"):
            self._end(0)
        elif key == "repaint":
            self._terminal.forget()
        elif self.where != "routes":
            self._press_on_page(key)
        elif key in ("p", "r") and self.chosen.route:
            self._nursery.start_soon(self._steer, "pause" if key == "p" else "resume")
        elif key in ("enter", "right") and self.chosen.route:
            self._open("detail")
        elif key in ("?", "h"):
            self._open("help")
        elif key in ("s", "S"):
            step = 1 if key == "s" else -1
            self.chosen.order = ORDERS[(ORDERS.index(self.chosen.order) + step) % len(ORDERS)]
        elif key in _MOVES:
            self._select(_MOVES[key](self._index(), self._page()))
        self._to_paint()

    def _press_on_page(self, key: str) -> None:
        if key in ("escape", "left", "enter") or (key in ("?", "h") and self.where == "help"):
            self.where = "routes"
        elif key in ("?", "h"):
            self._open("help")
        elif key in ("p", "r") and self.where == "detail":
            self._nursery.start_soon(self._steer, "pause" if key == "p" else "resume")
        elif key in _MOVES:
            first = last_first(len(self._page_lines()), self._first, self._terminal.size()[1])
            self._first = max(0, _MOVES[key](first, self._page()))

    def _open(self, where: Where) -> None:
        self.where, self._first = where, 0
        self._details_for = ()
        self._want_details()

    def _page(self) -> int:
        return max(1, self._terminal.size()[1] - 4)

    def _index(self) -> int:
        names = in_order(self.picture, self.chosen.order)
        return names.index(self.chosen.route) if self.chosen.route in names else 0

    def _select(self, index: int) -> None:
        names = in_order(self.picture, self.chosen.order)
        self.chosen.route = names[max(0, min(index, len(names) - 1))] if names else ""

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGWINCH:
                self._to_paint()
            elif number == signal.SIGTSTP:
                self._terminal.leave()
                os.kill(os.getpid(), signal.SIGSTOP)  # and on we go, when the shell lets us
                self._terminal.enter()
                self._to_paint()
            else:
                self._end(0 if number == signal.SIGINT else 128 + number)

    def _end(self, code: int) -> None:
        self._code = code
        self._nursery.cancel_scope.cancel()

    # --- painting -------------------------------------------------------------------------------------

    def _say(self, message: str) -> None:
        self.chosen.message = message
        self._message_until = trio.current_time() + MESSAGE_S
        self._to_paint()

    def _to_paint(self) -> None:
        self._changed.set()

    async def _paint_on(self) -> None:
        while True:
            size = self._terminal.size()
            data = self._terminal.changes(self.lines(size), size)
            if data:
                # In a thread: a line that is held must not keep anybody from quitting.
                await trio.to_thread.run_sync(self._terminal.send, data, abandon_on_cancel=True)
            await self._changed.wait()
            self._changed = trio.Event()

    def lines(self, size: tuple[int, int]) -> list[Text]:
        """What is to be seen now."""
        width, height = size
        if self.where == "routes":
            return screen(self.picture, self.chosen, width, height)
        if self.where == "help":
            return help_screen(self.chosen, width, height, self._first)
        return scrolled(
            f"Route {self.chosen.route}", self._page_lines(), self.chosen, width, height, self._first
        )

    def _page_lines(self) -> list[Text]:
        if self.where == "help":
            return [Text(line) for line in HELP.splitlines()]
        name = self.chosen.route
        return detail_lines(self.picture, name, self._details or Details(name), self._terminal.size()[0])


_MOVES: dict[str, Callable[[int, int], int]] = {
    "up": lambda at, page: at - 1,
    "k": lambda at, page: at - 1,
    "down": lambda at, page: at + 1,
    "j": lambda at, page: at + 1,
    "page up": lambda at, page: at - page,
    "page down": lambda at, page: at + page,
    "home": lambda at, page: 0,
    "g": lambda at, page: 0,
    "end": lambda at, page: 1 << 30,
    "G": lambda at, page: 1 << 30,
}
