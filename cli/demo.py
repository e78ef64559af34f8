"""`logroute demo`: containers, routes and a live view in one command, with nothing to configure.

The containers are those of the simulated engine, which speaks the Docker Engine API and writes json-file logs
like the real one; everything behind it is the daemon as it runs anywhere.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import trio

from logroute.cli import log
from logroute.config.components import SINKS, SOURCES
from logroute.router.daemon import Daemon, Plan, RoutePlan, stop_on_signals
from logroute.router.match import Match
from logroute.router.record import Batch
from logroute.router.route import Route, RouteSettings
from logroute.sinks import Rejected, Sink, SinkOptions
from logroute.sinks.encoding import display_name
from logroute.sinks.stdout import visible
from logroute.sources import SourceContext

COLOURS = (36, 33, 35, 32, 34, 31)


class LiveOptions(SinkOptions):
    """Show records on the terminal, for the demo."""

    type: Literal["live"] = "live"


class LiveView(Sink[LiveOptions]):
    """One line a record: the container's name in its colour, then the message."""

    def __init__(self, options: LiveOptions, context: Any) -> None:
        super().__init__(options, context)
        self._colours: dict[str, int] = {}
        self._in_colour = sys.stdout.isatty()
        self._width = shutil.get_terminal_size().columns if self._in_colour else 200

    async def deliver(self, batches: Sequence[Batch]) -> Sequence[Rejected]:
        lines = [
            self._line(display_name(batch.origin), record.stream, record.message)
            for batch in batches
            for record in batch.records
        ]
        await trio.to_thread.run_sync(self._print, "".join(lines))
        return ()

    def _line(self, name: str, stream: str, message: str) -> str:
        mark = "!" if stream == "stderr" else " "
        text = visible(message)[: max(20, self._width - 14)]
        if not self._in_colour:
            return f"{name:<10}{mark} {text}\n"
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        if stream == "stderr":
            text = f"\x1b[31m{text}\x1b[0m"
        return f"\x1b[{colour}m{name:<10}\x1b[0m{mark} {text}\n"

    @staticmethod
    def _print(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@click.command("demo")
@click.option("--seconds", default=8.0, show_default=True, help="How long it goes on.")
@click.option("--folder", metavar="DIR", help="Where the files go; default: a new one for them.")
def command(seconds: float, folder: str | None) -> None:
    """See it work: four containers, two routes into files, and a live view."""
    log.configure(level="warning")
    where = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="logroute-demo-"))
    where.mkdir(parents=True, exist_ok=True)
    trio.run(_demo, where.absolute(), seconds)


async def _demo(folder: Path, seconds: float) -> None:
    from logroute.simulator.chatter import chat, populate
    from logroute.simulator.engine import SimulatedEngine

    click.echo("Four containers of a simulated Docker engine; `everything` and `errors` are two routes.\n")
    with tempfile.TemporaryDirectory(prefix="logroute-engine-") as root:
        async with SimulatedEngine(Path(root)) as engine, trio.open_nursery() as nursery:
            talks = populate(engine, 4)
            daemon = Daemon(_plan(folder, engine.host))
            await nursery.start(stop_on_signals, daemon)
            nursery.start_soon(partial(chat, talks, rate=25.0))
            nursery.start_soon(_stop_after, daemon, seconds)
            await daemon.run()
            nursery.cancel_scope.cancel()
    counts = {name: route.statistics().delivered for name, route in daemon.router.routes.items()}
    click.echo(
        f"\nThe route `everything` has written {counts['everything']} records, all as JSON, to\n"
        f"  {folder}/everything.ndjson\n"
        f"and `errors` {counts['errors']} lines that came on stderr, a file a container, to\n"
        f"  {folder}/errors/\n\n"
        "The same with your own containers, everything into one file:\n"
        "  logroute run file:///tmp/all.ndjson"
    )


async def _stop_after(daemon: Daemon, seconds: float) -> None:
    await trio.sleep(seconds)
    daemon.stop()


def _plan(folder: Path, host: str) -> Plan:
    def file(path: str, format_: str) -> Any:
        options = SINKS.options("file").model_validate({"path": f"{folder}/{path}", "format": format_})
        return partial(SINKS.create, options)

    def live(route: Route) -> Sink[Any]:
        return LiveView(LiveOptions(), route)

    source = SOURCES.options("docker").model_validate({"host": host, "start": "beginning"})
    return Plan(
        [
            RoutePlan(RouteSettings("everything"), file("everything.ndjson", "json")),
            RoutePlan(
                RouteSettings("errors", match=Match.parse({"stream": "stderr"})),
                file("errors/{container.name}.log", "text"),
            ),
            RoutePlan(RouteSettings("live view"), live),
        ],
        [partial(SOURCES.create, source, SourceContext("docker"))],
    )
