"""`logroute demo`: containers, routes and a live view in one command, with nothing to configure.

Where no engine answers that can run some, the containers are those of the simulated engine, which speaks the
Docker Engine API and writes json-file logs like the real one; everything behind it is the daemon as it runs
anywhere.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import trio

from logroute.cli import log, process
from logroute.cli.demo_containers import LABEL, real_containers
from logroute.cli.screen import Screen, Style
from logroute.config.components import SINKS, SOURCES
from logroute.router.daemon import Daemon
from logroute.router.match import Match
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.record import Batch, Origin
from logroute.router.route import Route, RouteSettings
from logroute.router.system import stop_on_signals
from logroute.sinks import DELIVERED, Outcome, Sink, SinkOptions
from logroute.sinks.encoding import display_name
from logroute.sources import SourceContext


class LiveOptions(SinkOptions):
    """Show records on the terminal, for the demo."""

    type: Literal["live"] = "live"


class LiveView(Sink[LiveOptions]):
    """Records as `logroute tail` shows them."""

    def __init__(self, options: LiveOptions, context: Any) -> None:
        super().__init__(options, context)
        terminal = sys.stdout.isatty()
        colour = terminal and not os.environ.get("NO_COLOR")
        columns = shutil.get_terminal_size((80, 24)).columns
        style = Style(colour=colour, terminal=terminal, width=columns)
        self._screen = Screen(style, levels=colour, name=_short_name)

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        text = self._screen.render(batches)
        await trio.to_thread.run_sync(self._print, text)
        return DELIVERED

    @staticmethod
    def _print(text: bytes) -> None:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()


def _short_name(origin: Origin) -> str:
    """`web` of `logroute-demo-web-4711`."""
    return str(origin.compose.get("service") or display_name(origin))


@click.command("demo")
@click.option("--seconds", default=8.0, show_default=True, help="How long it goes on.")
@click.option("--folder", metavar="DIR", help="Where the files go; default: a new one for them.")
@click.option("--simulated", is_flag=True, help="Do not ask for a real engine.")
def command(seconds: float, folder: str | None, simulated: bool) -> None:
    """See it work: four containers, two routes into files, and a live view.

    The containers run on this host's Docker engine, if it has an image with a shell (nothing is downloaded),
    and are removed at the end; otherwise they are simulated.
    """
    log.configure(level="warning")
    where = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="logroute-demo-"))
    where.mkdir(parents=True, exist_ok=True)
    where = where.absolute()
    process.tune()
    with nullcontext() if simulated else real_containers() as real:
        if real is not None:
            click.echo(
                f"Four containers of your Docker engine (from {real.image}); "
                "`everything` and `errors` are two routes.\n"
            )
            daemon = trio.run(_run, _plan(where, real.address, {f"label.{LABEL}": real.demo}), seconds)
        else:
            click.echo(
                "Four containers of a simulated Docker engine; `everything` and `errors` are two routes.\n"
            )
            daemon = trio.run(_run_simulated, where, seconds)
    _tell(daemon, where)


async def _run(plan: Plan, seconds: float) -> Daemon:
    daemon = Daemon(plan)
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signals, daemon)
        nursery.start_soon(_stop_after, daemon, seconds)
        await daemon.run()
        nursery.cancel_scope.cancel()
    return daemon


async def _run_simulated(folder: Path, seconds: float) -> Daemon:
    from logroute.simulator.chatter import chat, populate
    from logroute.simulator.engine import SimulatedEngine

    with tempfile.TemporaryDirectory(prefix="logroute-engine-") as root:
        async with SimulatedEngine(Path(root)) as engine, trio.open_nursery() as nursery:
            nursery.start_soon(partial(chat, populate(engine, 4), rate=25.0))
            daemon = await _run(_plan(folder, engine.host), seconds)
            nursery.cancel_scope.cancel()
    return daemon


def _tell(daemon: Daemon, folder: Path) -> None:
    """What there is now, and what to type next."""
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


def _plan(folder: Path, host: str, include: dict[str, str] | None = None) -> Plan:
    def file(path: str, format_: str) -> Any:
        options = SINKS.options("file").model_validate({"path": f"{folder}/{path}", "format": format_})
        return partial(SINKS.create, options)

    def live(route: Route) -> Sink[Any]:
        return LiveView(LiveOptions(), route)

    options = {"host": host, "start": "beginning", **({"include": include} if include else {})}
    source = SOURCES.options("docker").model_validate(options)
    return Plan(
        [
            RoutePlan(RouteSettings("everything"), file("everything.ndjson", "json")),
            RoutePlan(
                RouteSettings("errors", match=Match.parse({"stream": "stderr"})),
                file("errors/{container.name}.log", "text"),
            ),
            RoutePlan(RouteSettings("live view"), live),
        ],
        [SourcePlan("docker", partial(SOURCES.create, source, SourceContext("docker")))],
    )
