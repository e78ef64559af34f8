"""`logroute tail`: what containers say, live; with a daemon what it sees, else from the engine itself."""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import trio

from logroute.cli import log, process
from logroute.cli.names import container_names, route_names
from logroute.cli.tail_output import CannotWrite, Gone, until_gone, until_interrupted, write_all

if TYPE_CHECKING:
    from logroute.cli.tail_batches import Context
    from logroute.router.match import Match

LINES = 10
"""Of each container to begin with, where nothing else is said."""
INTERRUPTED = 130
REST_WITHIN_S = 1.0
"""What waits to be merged is still shown after ctrl-C, if the terminal takes it within this time."""
BY_HOST = "from --host"
_ASSIGNMENT = re.compile(r"([A-Za-z_][\w.@/-]*)=(?![=~])(.*)", re.DOTALL)
_PATH_LEVEL = "level"


@click.command("tail", context_settings={"max_content_width": 100})
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=container_names)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    metavar="N",
    help="Begin with N lines of each, of which filters choose.",
)
@click.option("--since", metavar="TIME", help="Begin there: 10m, 2026-11-23T20:00:00Z, 2026-11-23.")
@click.option("--until", metavar="TIME", help="End there.")
@click.option("-f/-F", "--follow/--no-follow", default=None, help="Go on with what comes (default), or not.")
@click.option("-i", "--include", multiple=True, metavar="RE", help="Only lines in which it is found.")
@click.option("-e", "--exclude", multiple=True, metavar="RE", help="No lines in which it is found.")
@click.option("-H", "--highlight", multiple=True, metavar="RE", help="Mark what it finds.")
@click.option("-l", "--level", metavar="LEVEL", help="At least: trace debug info notice warn error fatal.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this one.")
@click.option("--image", multiple=True, metavar="PATTERN", help="Only containers of these images.")
@click.option("--label", multiple=True, metavar="K=V", help="Only with this label; K alone: any value.")
@click.option(
    "-m",
    "--match",
    "matches",
    multiple=True,
    metavar="MATCH",
    help="'fields.status=>=500', or an expression.",
)
@click.option(
    "-A", "--after", type=click.IntRange(0), default=0, metavar="N", help="And N lines behind each."
)
@click.option("-B", "--before", type=click.IntRange(0), default=0, metavar="N", help="And N before.")
@click.option("-C", "--context", type=click.IntRange(0), default=0, metavar="N", help="Both.")
@click.option("-t", "--timestamps", is_flag=True, help="The engine's time before each line.")
@click.option("--timezone", metavar="ZONE", help="For the times: Europe/Berlin, local; default: UTC.")
@click.option("-o", "--output", default="default", metavar="FORMAT", help="default, raw, json or logfmt.")
@click.option("--template", metavar="TEXT", help="Such as '{time:%H:%M:%S} {container.name} {message}'.")
@click.option("--color", "--colour", type=click.Choice(["auto", "always", "never"]), default="auto")
@click.option("--order", metavar="TIME", help="Merge by time what comes within so much, such as 250ms.")
@click.option(
    "--route",
    metavar="NAME",
    help="What this route's sink is given; needs a daemon.",
    shell_complete=route_names,
)
@click.option("--host", metavar="URL", help="Read this engine itself: unix:///…, tcp://…, no daemon.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of containers that come and go.")
@click.option("--api", metavar="URL", help="The daemon's API; else $LOGROUTE_API, the default socket.")
@click.option("--token-file", envvar="LOGROUTE_TOKEN_FILE", metavar="FILE", help="Token of an API.")
def command(**given: Any) -> None:
    """See what containers say: all, or those whose names PATTERNs match (globs, or /regex/).

    \b
    logroute tail                        every container
    logroute tail 'web-*' -l warn        some, and only what is grave
    logroute tail api --since 10m -F     the last ten minutes, then the prompt
    logroute tail --route search         what this route's sink is given

    Where it follows it begins with the last 10 lines of each. Filters choose among these: to find more
    say --since, or a larger -n.
    """
    log.configure(level="error")
    if sys.__stdout__ is None:
        click.echo("logroute tail: standard output is closed", err=True)
        sys.exit(1)
    try:
        asked = _Asked(given)
    except ValueError as error:
        click.echo(f"logroute tail: {_safe(str(error))}", err=True)
        sys.exit(2)
    process.tune(ends_soon=True)
    try:
        sys.exit(trio.run(_Tail(asked).run))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Gone:
        # Python would say so again when it closes what cannot be written to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)


def _safe(text: str) -> str:
    from logroute.router.visible import visible

    return "\n".join(map(visible, text.split("\n")))


class _Asked:
    """What was typed, checked. Raises ValueError."""

    def __init__(self, given: dict[str, Any]) -> None:
        from logroute.api.moment import point_in_time
        from logroute.config.types import parse_duration

        now = time.time()
        self.patterns: list[str] = list(given["patterns"])
        self.since = _moment(point_in_time, given["since"], "--since", now)
        self.until = _moment(point_in_time, given["until"], "--until", now)
        if self.since and self.since > point_in_time("0s", now):
            raise ValueError(f"--since: {self.since} is in the future")
        if self.since and self.until and self.until < self.since:
            raise ValueError(f"--until: {self.until} is before --since")
        self.follow: bool = given["follow"] if given["follow"] is not None else not self.until
        if self.follow and self.until:
            raise ValueError("--until ends it: leave out --follow")
        self.lines: int | None = given["lines"]
        if self.lines is None and not self.since:
            self.lines = LINES if self.follow else None
        self.order_s = parse_duration(given["order"]) if given["order"] else 0.0
        self.before: int = given["before"] or given["context"]
        self.after: int = given["after"] or given["context"]
        self.route: str | None = given["route"]
        self.host: str | None = given["host"]
        self.quiet: bool = given["quiet"]
        self.api: str | None = given["api"]
        self.token_file: str | None = given["token_file"]
        if self.host and (self.route or self.api):
            raise ValueError("--host reads an engine itself, without a daemon: leave out --route and --api")
        if self.host:
            from logroute.sources.engine_address import EngineAddress

            EngineAddress.parse(self.host, BY_HOST)
        self.format: str = given["template"] or given["output"]
        if given["template"] and "{" not in given["template"]:
            raise ValueError("--template: there is no placeholder in it, such as {message}")
        if not given["template"] and self.format not in ("default", "raw", "json", "logfmt"):
            raise ValueError(
                f"-o: there is no format {self.format!r}; default, raw, json, logfmt, or --template"
            )
        if self.format != "default":
            from logroute.sinks.encoding import encoder

            encoder(self.format)
        self.times: bool = given["timestamps"]
        self.zone = _zone(given["timezone"])
        self.highlight = _pattern(given["highlight"])
        self.colour: str = given["color"]
        self._conditions(given)

    def _conditions(self, given: dict[str, Any]) -> None:
        """What is asked of containers, which the daemon can decide; and of records."""
        containers: list[dict[str, Any]] = []
        if self.patterns:
            containers.append({"container": self.patterns})
        if given["image"]:
            containers.append({"image": list(given["image"])})
        for label in given["label"]:
            key, equals, value = label.partition("=")
            containers.append({f"label.{key}": value} if equals else {"label": key})
        records: list[Any] = []
        if given["stream"]:
            records.append({"stream": given["stream"]})
        if given["include"]:
            records.append({"message": [f"/{_checked(text)}/" for text in given["include"]]})
        if given["exclude"]:
            records.append({"not": {"message": [f"/{_checked(text)}/" for text in given["exclude"]]}})
        parsed: list[Any] = []
        for text in given["matches"]:
            condition = _condition(text)
            found = any(map(_is_found, _all([condition]).record_paths))
            (parsed if found else records).append(condition)
        levels: list[Any] = []
        if given["level"]:
            from logroute.router.levels import LEVELS, NAMES

            if given["level"].lower() not in NAMES:
                raise ValueError(f"-l: there is no level {given['level']!r}; {', '.join(LEVELS)}")
            levels.append({"level": f">={NAMES[given['level'].lower()]}"})
        self.containers = _all(containers)
        self.records = _all(records)
        """Of a line as it was written."""
        self.parsed = _all(parsed)
        """Of what it says of its level and fields."""
        self.levels = _all(levels)

    @property
    def has_context(self) -> bool:
        return bool(self.before or self.after)


def _moment(parse: Any, text: str | None, option: str, now: float) -> str:
    if not text:
        return ""
    try:
        found: str = parse(text, now)
    except ValueError:
        from logroute.api.moment import advice

        raise ValueError(f"{option}: {text!r} is no time; {advice(text)}") from None
    return found


def _checked(text: str) -> str:
    """Raises ValueError for what is no regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _condition(text: str) -> Any:
    found = _ASSIGNMENT.fullmatch(text)
    return {found[1]: found[2]} if found else text


def _is_found(path: str) -> bool:
    """Whether processors find in a line what is there."""
    return path == "level" or path.startswith("fields.")


def _all(conditions: Sequence[Any]) -> Match:
    """A match of which all have to hold."""
    from logroute.router.match import Match, MatchError

    try:
        values = [Match.parse(each).to_value() for each in conditions]
        return Match.parse({"all": values} if len(values) > 1 else values[0] if values else {})
    except MatchError as error:
        path = ".".join(map(str, error.path))
        raise ValueError(f"{path}: {error}" if path else str(error)) from None


def _together(*matches: Match) -> Match | None:
    """All of them; None if they ask for nothing."""
    from logroute.router.match import Match

    values = [match.to_value() for match in matches if match.to_value()]
    return Match.parse({"all": values}) if values else None


def _zone(text: str | None) -> Any:
    if text is None or text.upper() == "UTC":
        return None
    if text == "local":
        from datetime import datetime

        return datetime.now().astimezone().tzinfo
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(text)
    except Exception:
        raise ValueError(f"--timezone: there is no zone {text!r}; such as Europe/Berlin, or local") from None


def _pattern(texts: Sequence[str]) -> re.Pattern[str] | None:
    try:
        return re.compile("|".join(f"(?:{text})" for text in texts)) if texts else None
    except re.error as error:
        raise ValueError(f"-H: no regular expression: {error}") from None


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    """What a name may have meant that is none; a pattern has meant nothing else."""
    from logroute.api.containers import nearest

    return [] if re.search(r"[*?\[/]", pattern) else nearest(pattern, set(names))


class _Tail:
    """One run of the command."""

    def __init__(self, asked: _Asked) -> None:
        from logroute.cli.screen import Screen, Style
        from logroute.cli.tail_batches import Order

        self._asked = asked
        terminal = sys.stdout.isatty()
        unwanted = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        colour = asked.colour == "always" or (asked.colour == "auto" and terminal and not unwanted)
        self._says = not asked.quiet
        self._err_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._err_colour = self._err_terminal and asked.colour != "never" and not unwanted
        self._screen = Screen(
            Style(
                format=asked.format,
                colour=colour,
                many_colours="256" in os.environ.get("TERM", "") or bool(os.environ.get("COLORTERM")),
                terminal=terminal,
                width=shutil.get_terminal_size((80, 24)).columns,
                times=asked.times,
                zone=asked.zone,
                highlight=asked.highlight,
            ),
            levels=colour,
        )
        self._context: Context | None = None
        self._order = Order(asked.order_s) if asked.order_s else None
        self._limiter = trio.CapacityLimiter(1)
        self._apart: Any = None
        self._nobody = False
        """No container is meant."""

    async def run(self) -> int:
        """The exit code."""
        from logroute.api.client import NoDaemon
        from logroute.cli.tail_sources import CannotLook, NoEngine, Senseless

        asked = self._asked
        code = 0
        gone = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_interrupted)
                if stat.S_ISFIFO(os.fstat(1).st_mode):
                    nursery.start_soon(until_gone)
                if self._order is not None:
                    nursery.start_soon(self._in_order, self._order)
                try:
                    await self._look()
                finally:
                    if self._order is not None:
                        ends_now = trio.current_effective_deadline() == -math.inf
                        # Where nobody has ended us, somebody still may: that has to be heard.
                        with trio.move_on_after(REST_WITHIN_S if ends_now else math.inf, shield=ends_now):
                            await self._write(self._screen.render(self._order.take(all=True)))
                nursery.cancel_scope.cancel()
        except* Gone:
            gone = True
        except* (CannotLook, NoDaemon, CannotWrite) as errors:
            error: BaseException = errors
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            nowhere = isinstance(error, NoDaemon | NoEngine) and not asked.host and not asked.api
            hint = "; say where one is with --host or --api" if nowhere else ""
            click.echo(f"logroute tail: {_safe(str(error))}{hint}", err=True)
            code = 2 if isinstance(error, Senseless) else 1
        except* KeyboardInterrupt:
            code = INTERRUPTED
        if gone:
            raise Gone
        return code or int(self._nobody and not asked.follow)

    async def _look(self) -> None:
        from logroute.api.client import NoDaemon

        asked = self._asked
        must = bool(asked.api or asked.route or os.environ.get("LOGROUTE_API"))
        if not asked.host:
            try:
                await self._at_daemon()
                return
            except NoDaemon:
                if must:
                    raise
        await self._at_engine()

    def _choose(self, *conditions: Any) -> None:
        """Choose here what nobody before us can: by levels, which a daemon that looks for none does not know;
        by these conditions on what a line says; and where context is shown, by what was asked of the line."""
        from logroute.cli.tail_batches import Context
        from logroute.router.selection import Chooser

        asked = self._asked
        parsed = _together(asked.levels, *conditions)
        lines = _together(asked.records) if asked.has_context else None
        if parsed is not None or lines is not None:
            self._context = Context(
                Chooser(lines) if lines is not None else None,
                asked.before,
                asked.after,
                parsed=Chooser(parsed) if parsed is not None else None,
                parse=self._screen.parsed,
            )

    async def _at_daemon(self) -> None:
        from logroute.api.client import find_address
        from logroute.cli.tail_sources import Senseless, from_daemon

        asked = self._asked
        try:
            address, token = find_address(asked.api, asked.token_file)
        except ValueError as error:
            raise Senseless(str(error)) from error
        query = [
            ("follow", "true" if asked.follow else "false"),
            ("events", "true" if self._says and asked.follow else "false"),
        ]
        if asked.since:
            query.append(("since", asked.since))
        if asked.until:
            query.append(("until", asked.until))
        if asked.lines is not None:
            query.append(("lines", str(asked.lines)))
        elif not asked.since:
            query.append(("since", "1970-01-01"))
        if asked.route:
            query.append(("route", asked.route))
        import msgspec

        if asked.has_context:
            matches = [asked.containers]
            self._choose(asked.parsed)
        else:
            matches = [asked.containers, asked.records, asked.parsed]
            self._choose()
        query += [("match", msgspec.json.encode(value).decode()) for m in matches if (value := m.to_value())]
        whole = asked.format == "json" and self._context is None and self._order is None
        self._tell(f"what the daemon at {address} sees")
        await from_daemon(
            address,
            token,
            query,
            whole=whole and not self._screen.guarded,
            show=self.show,
            raw=self._raw,
            there=self._there if asked.patterns else None,
        )

    async def _at_engine(self) -> None:
        from logroute.cli.tail_sources import from_engine
        from logroute.router.look import Query
        from logroute.router.match import EVERYTHING
        from logroute.sources import Past

        asked = self._asked
        self._choose(asked.parsed)
        # Raw and JSON are what the engine has: programs read them, and finding levels in texts costs more
        # than all the rest.
        self._screen.parses = asked.format not in ("default", "raw", "json")
        wanted = [asked.containers] + ([] if asked.has_context else [asked.records])
        past = Past(since=asked.since, until=asked.until, last=asked.lines)
        query = Query(
            _together(*wanted) or EVERYTHING,
            past=None if asked.lines == 0 and not asked.since else past,
            follow=asked.follow,
            news=self._says and asked.follow,
            ended=bool(asked.since or asked.patterns or not asked.follow),
        )
        await from_engine(
            asked.host,
            query,
            show=self.show,
            said_by=BY_HOST,
            wrong=lambda text: self._tell(text, always=True),
            there=self._there if asked.patterns else None,
            began=lambda address: self._tell(f"no daemon: what the engine {address} has"),
        )

    # --- what is shown ------------------------------------------------------------------------------------

    async def show(self, items: Sequence[Any]) -> None:
        from logroute.router.record import Batch

        batches: list[Batch] = []
        for item in items:
            if isinstance(item, Batch):
                batches.append(item)
                continue
            await self._batches(batches)
            batches = []
            self._say(item)
        await self._batches(batches)

    async def _batches(self, batches: list[Any]) -> None:
        if not batches:
            return
        self._screen.names([batch.origin for batch in batches])
        if self._context is not None:
            batches = self._context.of(batches)
        if self._order is not None:
            self._order.put(batches)
        else:
            await self._write(self._screen.render(batches))

    async def _in_order(self, order: Any) -> None:
        while True:
            wait_s = order.next_s()
            if wait_s is None:
                await order.came.wait()
                order.came = trio.Event()
                continue
            await trio.sleep(wait_s)
            await self._write(self._screen.render(order.take()))

    async def _raw(self, data: bytes) -> None:
        """Lines of the API as they are; what is no record is said apart."""
        from logroute.cli.tail_sources import Apart

        if self._apart is None:
            self._apart = Apart()
        lines, said = self._apart.feed(data)
        await self._write(lines)
        for item in said:
            self._say(item)

    async def _write(self, data: bytes) -> None:
        if data:
            await trio.to_thread.run_sync(
                partial(write_all, data), limiter=self._limiter, abandon_on_cancel=True
            )

    def _say(self, item: Any) -> None:
        from logroute.router.look import Problem
        from logroute.router.views import News, Skipped
        from logroute.sinks.encoding import display_name

        if isinstance(item, Skipped):
            self._tell(f"{item.records:,} records went by too fast to be shown", always=True)
        elif isinstance(item, Problem):
            self._tell(f"{display_name(item.origin)} cannot be read: {item.reason}", always=True)
        elif isinstance(item, News) and self._says:
            mark = {"started": "+", "renamed": "~"}.get(item.event, "-")
            self._tell(f"{mark} {display_name(item.origin)} {item.event}", always=True, mark="")

    def _there(self, found: Sequence[tuple[Any, str]]) -> None:
        """Of these containers, with why one is not read, which are meant? Says which names mean none."""
        from logroute.router.match import Match

        asked = self._asked
        self._nobody = True
        for pattern in asked.patterns:
            match = Match.parse({"container": pattern})
            meant = [(origin, reason) for origin, reason in found if match.decide(origin)]
            if any(not reason for _, reason in meant):
                self._nobody = False
                continue
            if meant:
                (origin, reason), *_ = meant
                text = f"nothing of {origin.name} is read: {reason}"
            else:
                text = f"no container matches {pattern}" + (" yet" if asked.follow else "")
                if near := _near(pattern, [origin.name for origin, _ in found]):
                    text += f"; did you mean {' or '.join(near)}?"
            if not asked.follow:
                click.echo(f"logroute tail: {_safe(text)}", err=True)
            elif self._says:
                self._tell(text, always=True)

    def _tell(self, text: str, *, always: bool = False, mark: str = "* ") -> None:
        """On stderr: stdout is for what containers say. Without `always`, for who looks at a terminal."""
        if always or (self._says and self._err_terminal):
            text = _safe(mark + text)
            click.echo(f"\x1b[2m{text}\x1b[0m" if self._err_colour else text, err=True)
