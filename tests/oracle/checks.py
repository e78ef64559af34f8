"""The judgement: pure functions over a history. What each allows, and why, stands beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from tests.oracle.history import (
    Books,
    Delivery,
    History,
    Life,
    RouteHistory,
    Span,
    StreamName,
    Violation,
    Written,
)
from tests.oracle.records import Key

PATIENCE_S = 10.0
"""In what time a route that nothing hinders has delivered what was written, also after a fault has ended:
the daemon's start, the longest pause of `retry`, the engine's list, on a machine that has other work."""

COMMIT_S = 2.0
"""How long an acknowledgement may wait to be stored (it is done every 250 ms): what kill -9 repeats."""

COUNTED_S = 2.0
"""What was accepted so long before it is asked, a daemon has counted."""

OPENING_S = {"file": 2.0, "api": 5.0}
"""How long after it is there again a daemon, or an engine, may need until every log is open."""

REOPENING_S = 1.0
"""For how long before a removal, by API, what was written may not have been read. The stream that follows a
rotated log is opened anew at intervals, for which the engine decodes all of the log: `docker rm -f` in that
moment takes away what nobody can ask for any more. That is a limit of the API, and documented."""


def judge(history: History) -> list[Violation]:
    """All promises, once everything has ended."""
    found = list(history.seen)
    for route in history.routes.values():
        found += [*lost(history, route), *doubled(history, route), *reordered(history, route)]
        found += [*undue(history, route), *miscounted(history, route)]
    return found


# --- lost ---------------------------------------------------------------------------------------------


def lost(history: History, route: RouteHistory) -> Iterator[Violation]:
    """Every record that was written arrives, but for:

    - what the receiver refused for good;
    - what the engine gave up before a daemon could read it again; of a container that is still there this
      must be said;
    - by API, what a container wrote right before it was removed: its stream may just have been opened anew;
    - over plain TCP, what the receiver's kernel had taken and nobody read: at most one buffer a cut, and no
      more than the daemon says;
    - what the route dropped because it was told to (`when_full`), and no more than it says. What a daemon has
      dropped since it was last asked is not known when it ends, so this binds what was written after that.
    """
    shed_left, told_since = _told_to_drop(history, route)
    bytes_left = route.cuts * route.cut_bytes if route.promise == "confirmed" else 0
    records_left = math.inf if route.unconfirmed is None else route.unconfirmed
    for name, written in history.written.items():
        missing = set(range(len(written.times))) - set(route.arrivals[name].numbers)
        missing -= {key.number for key in route.refused if StreamName(key.container, key.stream) == name}
        if route.sheds:
            missing = {number for number in missing if written.times[number] > told_since}
        excused = {
            number
            for number in missing
            if _was_out_of_reach(history, route, written, number) or _was_removed_with_it(written, number)
        }
        said = written.removed or (route.name, name.container) in history.announced
        # What is gone now may have been lost by a cut, or dropped, long before.
        otherwise = route.promise == "confirmed" or route.sheds
        if excused and not said and not otherwise:
            yield _violation(route, "lost in silence", name, written, excused)
        if said or not otherwise:
            missing -= excused
        if route.sheds:
            by_size = sorted(missing, key=lambda number: written.sizes[number], reverse=True)
            missing = set(by_size[shed_left:])
            shed_left -= len(by_size) - len(missing)
        size = sum(written.sizes[number] for number in missing)
        if size <= bytes_left and len(missing) <= records_left:
            bytes_left -= size
            records_left -= len(missing)
        else:
            yield _violation(route, "lost", name, written, missing)


def _told_to_drop(history: History, route: RouteHistory) -> tuple[int, float]:
    """How many records this daemon says it has dropped for want of room; the end of the one before it."""
    last = history.lives[-1] if history.lives else None
    ended = max((life.end for life in history.lives[:-1]), default=-math.inf)
    said = last.books.get(route.name) if last is not None else None
    return said.shed if said is not None else 0, ended


def _was_out_of_reach(history: History, route: RouteHistory, written: Written, number: int) -> bool:
    """Whether it was gone when a daemon (by API: an engine) came back that had not brought it to this route.

    While the daemon runs it holds what rotation and removal take away, so these excuse nothing by themselves.
    """
    gone_at = written.gone_at(number)
    if gone_at == math.inf:
        return False
    spans = [_until_there_is_an_engine(history, down) for down in history.daemon_down]
    if written.read == "api":
        # What the engine has no more can only be in the spool, and nothing could be stored there, or not all.
        spans += history.engine_down + history.unstored + ([] if route.roomy else route.disturbed)
    return any(
        gone_at <= span.end + OPENING_S[written.read]
        and span.end < math.inf
        and written.times[number] >= _behind_since(history, route, span.begin)
        for span in spans
    )


def _was_removed_with_it(written: Written, number: int) -> bool:
    """Whether its container was removed right behind it, when its stream may have been opened anew."""
    if written.read != "api" or not written.removed:
        return False
    removed_at = max(at for _, at in written.gone)
    return written.times[number] >= removed_at - REOPENING_S


def _until_there_is_an_engine(history: History, down: Span) -> Span:
    """A daemon that starts while no engine answers knows of no logs yet, and so holds none of their files."""
    away = [engine.end for engine in history.engine_down if engine.begin <= down.end < engine.end]
    return Span(down.begin, max(away)) if away else down


def _behind_since(history: History, route: RouteHistory, at: float) -> float:
    """Since when what is written need not have arrived at a time: it was hindered until shortly before."""
    hindrances = sorted(
        history.daemon_down + history.engine_down + route.disturbed, key=lambda span: span.begin, reverse=True
    )
    for span in hindrances:
        if span.begin < at <= span.end + PATIENCE_S:
            at = span.begin
    return at - PATIENCE_S


def _violation(
    route: RouteHistory, kind: str, name: StreamName, written: Written, numbers: set[int]
) -> Violation:
    first = min(numbers)
    what = f"{len(numbers)} of {len(written.times)} records (#{ranges(numbers)}), read by {written.read},"
    what += f" the first written at {written.times[first]:.2f} s"
    if written.gone_at(first) < math.inf:
        what += f" and gone from the engine at {written.gone_at(first):.2f} s"
    return Violation(route.name, kind, what, Key(*name, first))


def ranges(numbers: Iterable[int], most: int = 8) -> str:
    """`3-7, 9`."""
    ordered = sorted(numbers)
    begins = [ordered[0], *(b for a, b in pairwise(ordered) if b != a + 1)]
    ends = [*(a for a, b in pairwise(ordered) if b != a + 1), ordered[-1]]
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(begins, ends, strict=True)]
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


# --- doubled ------------------------------------------------------------------------------------------


def doubled(history: History, route: RouteHistory) -> Iterator[Violation]:
    """Into files nothing comes twice; elsewhere only what the daemon cannot know to have been accepted."""
    for name, arrivals in route.arrivals.items():
        earlier: dict[int, Delivery] = {}
        again: list[tuple[int, Delivery]] = []
        for number, delivery in arrivals.in_turn():
            first = earlier.get(number)
            if first is not None and (route.promise == "exactly once" or _is_stored(history, first)):
                again.append((number, first))
            earlier[number] = delivery
        if again:
            numbers = {number for number, _ in again}
            what = f"{len(numbers)} came again (#{ranges(numbers)})"
            what += f", the first though it was accepted at {again[0][1].at:.2f} s"
            yield Violation(route.name, "doubled", what, Key(*name, again[0][0]))


def _is_stored(history: History, delivery: Delivery) -> bool:
    """Whether the daemon has heard that it was accepted, and has lived to remember it."""
    if not delivery.sure:
        return False
    for down in history.daemon_down:
        unstored = _unstored_at_the_end(history, down)
        # Ending in order is of no use where nothing can be stored.
        forgets = down.abrupt or bool(unstored)
        stored_until = min([down.begin, *(span.begin for span in unstored)])
        last_part = max(delivery.at, delivery.done_at)
        if forgets and delivery.at <= down.end and stored_until - COMMIT_S <= last_part:
            return False
    return True


def _unstored_at_the_end(history: History, down: Span) -> list[Span]:
    """When acknowledgements could not be stored, until the daemon had ended, storing the last."""
    ended = min((life.end for life in history.lives if life.end >= down.begin), default=down.begin)
    return [span for span in history.unstored if span.begin <= ended and down.begin <= span.end + COMMIT_S]


# --- in another order ---------------------------------------------------------------------------------


def reordered(history: History, route: RouteHistory) -> Iterator[Violation]:
    """Of each stream, what comes for the first time comes in order. Repetitions begin further back.

    Over plain TCP there may be some among them that come for the first time: a cut had cost them. And
    elsewhere what was refused the first time, and of routes that drop what was dropped, and is read again.
    """
    for name, arrivals in route.arrivals.items():
        refused = {key.number for key in route.refused if StreamName(key.container, key.stream) == name}
        arrived: set[int] = set()
        last = -1
        for run in _rising(arrivals.in_turn()):
            late = [(number, at) for number, at in run if number < last and number not in arrived]
            if any(number in arrived for number, _ in run):
                cost = route.promise == "confirmed" or route.sheds
                late = [(number, at) for number, at in late if not cost and number not in refused]
            if late:
                number, at = late[0]
                what = f"came behind #{last}, at {at:.2f} s"
                yield Violation(route.name, "reordered", what, Key(*name, number))
                break
            arrived.update(number for number, _ in run)
            last = max(last, run[-1][0])


def _rising(arrivals: Iterable[tuple[int, Delivery]]) -> Iterator[list[tuple[int, float]]]:
    """The numbers, and when they came, in runs that only rise."""
    run: list[tuple[int, float]] = []
    for number, delivery in arrivals:
        if run and number <= run[-1][0]:
            yield run
            run = []
        run.append((number, delivery.at))
    if run:
        yield run


# --- live ---------------------------------------------------------------------------------------------


def is_stalled(history: History, route: RouteHistory, now: float) -> bool:
    """Whether a route that nothing hinders has not delivered what was written, however much others hang.

    Only while containers write all the time.
    """
    hindrances = history.daemon_down + history.engine_down + route.disturbed
    free_since = max((span.end for span in hindrances), default=0.0)
    return now - max(free_since, route.newest) > PATIENCE_S


# --- the books ----------------------------------------------------------------------------------------


def unbalanced(books: Mapping[str, Books]) -> Iterator[Violation]:
    """`received = delivered + duplicates + rejected + dropped + queued + in_flight`, at any instant."""
    for name, of in books.items():
        parts = of.delivered + of.duplicates + of.rejected + of.dropped + of.queued + of.in_flight
        if of.received != parts:
            yield Violation(name, "unbalanced", f"received {of.received}, accounted for {parts}: {of}")


def undue(history: History, route: RouteHistory) -> Iterator[Violation]:
    """Nothing is dropped but for want of room, by a route that is told to. Of every daemon there was."""
    for life in history.lives:
        said = life.books.get(route.name)
        if said is not None and (said.dropped != said.shed or (said.shed and not route.sheds)):
            yield Violation(route.name, "dropped unasked", f"up from {life.begin:.2f} s it says {said}")


def miscounted(history: History, route: RouteHistory) -> Iterator[Violation]:
    """What each daemon says it has delivered is what was accepted while it ran, as far as that can be told.

    Whoever accepts surely has told it; what it may not have heard of may be missing from its books. What an
    attempt that goes on has delivered in part is in flight. Of files nobody knows when they were written,
    and over plain TCP what the kernel has taken counts, read or not.
    """
    if route.promise == "exactly once":
        return
    for life in history.lives:
        said = life.books.get(route.name)
        if said is None:
            continue
        least, most = _accepted(route, life)
        delivered = said.delivered + said.duplicates
        if delivered + said.in_flight < least or (route.promise == "at least once" and delivered > most):
            what = f"up from {life.begin:.2f} s it says at {life.answered:.2f} s that it has delivered"
            what += f" {delivered} records, {said.in_flight} in flight; from {least} to {most} were accepted"
            yield Violation(route.name, "miscounted", what)


def _accepted(route: RouteHistory, life: Life) -> tuple[int, int]:
    """How many records a receiver has accepted from a daemon: those it must have counted, and all."""
    least = most = 0
    for arrivals in route.arrivals.values():
        for delivery in arrivals.deliveries:
            if life.begin <= delivery.at <= life.answered:
                most += 1
                least += delivery.sure and delivery.at < life.asked - COUNTED_S
    return least, most


def misstated(history: History, books: Mapping[str, Books]) -> Iterator[Violation]:
    """What a daemon says at the end that has run from the beginning: nothing is under way, no more was
    dropped than is missing, and the receivers say the same of what they took and refused.
    """
    for name, of in books.items():
        route = history.routes[name]
        if of.queued or of.in_flight:
            yield Violation(name, "misstated", f"not everything is delivered at the end: {of}")
        arrived = {Key(*stream, n) for stream, arrivals in route.arrivals.items() for n in arrivals.numbers}
        delivered, refused = of.delivered + of.duplicates, len(route.refused - arrived)
        missing = sum(len(written.times) for written in history.written.values()) - len(arrived)
        # Elsewhere an attempt whose outcome is not known may have delivered what was dropped then.
        if route.promise == "exactly once" and of.shed > missing:
            yield Violation(name, "misstated", f"{missing} records are missing, not {of.shed} dropped")
        # Over plain TCP the difference is what cuts have cost.
        if delivered < len(arrived) or (route.promise != "confirmed" and delivered > len(arrived)):
            yield Violation(name, "misstated", f"{len(arrived)} records have arrived, not {delivered}")
        if of.rejected != refused:
            yield Violation(name, "misstated", f"{refused} records were refused, not {of.rejected}")
