"""`logroute explain`: why what a container says arrives, or does not. First the verdict, then why."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping

import click
import msgspec

from logroute.api.client import Client
from logroute.api.containers import ContainerFacts, Containers, RouteOfContainer, find
from logroute.cli.asking import ask, asking_options
from logroute.cli.names import container_names
from logroute.cli.tables import ago, span, when
from logroute.router.visible import visible

GOOD, BAD, DIM, END = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
WIDEST = 100


@click.command("explain")
@click.argument("container", shell_complete=container_names)
@asking_options
def command(container: str, api: str | None, token_file: str | None, output: str) -> None:
    """Say why what CONTAINER says arrives, or does not: by name, id, or the beginning of an id.

    Which routes take it and which condition fails for the others; how it is read; when its last record was
    read, and delivered; what stands in its way now.
    """

    def question(client: Client) -> tuple[ContainerFacts, str]:
        answer = client.get("/v1/containers", Containers)
        return find(answer.containers, container), answer.time

    facts, now = ask(api, token_file, question)
    if output == "json":
        click.echo(msgspec.json.encode(facts).decode())
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = min(WIDEST, shutil.get_terminal_size((80, 24)).columns)
    for line in Explanation(facts, now, colour=colour, width=width).lines():
        click.echo(line)


class Explanation:
    """One container, in words."""

    def __init__(self, facts: ContainerFacts, now: str, *, colour: bool = False, width: int = 80) -> None:
        self._facts = facts
        self._now = now
        self._colour = colour
        self._width = width

    def lines(self) -> list[str]:
        facts = self._facts
        good, verdict = self.verdict()
        found = [*self._wrapped(verdict, "", GOOD if good else BAD), ""]
        what = ", ".join(filter(None, (facts.id[:12], facts.image, facts.state)))
        found += self._wrapped(f"{facts.name}" + (f" ({what})" if what else ""), "")
        found += self._wrapped(self._reading(), "  ")
        for text in facts.labels:
            found += self._wrapped(
                f"- a label makes no sense, and changes nothing: {text}", "  ", hanging="    "
            )
        if facts.read == "ignored":
            return found
        for name, route in sorted(facts.routes.items(), key=lambda item: (not item[1].takes, item[0])):
            found += ["", *self._route(name, route)]
        if not facts.routes:
            found += ["", *self._wrapped("There are no routes.", "")]
        return found

    def verdict(self) -> tuple[bool, str]:
        """Whether all is well, and a sentence or two."""
        facts = self._facts
        name = facts.name
        if facts.read == "ignored":
            return False, f"Nothing of {name} is read: {facts.reason}."
        if facts.read == "waiting":
            return False, f"Nothing of {name} is read yet: {facts.reason}."
        taken = facts.taken
        if not taken:
            return False, f"No route takes {name}: what it says goes nowhere."
        bad = []
        if facts.reason:
            bad.append(f"{name} cannot be read on: {facts.reason}.")
        for route_name, route in taken.items():
            if not route.up:
                bad.append(
                    f"What {name} says does not arrive by {route_name} since {when(route.since)} UTC: "
                    f"{route.in_the_way}."
                )
            elif route.hindrance:
                bad.append(f"{route_name} is hindered: {route.hindrance}.")
        if bad:
            return False, " ".join(bad)
        late = [route_name for route_name, route in taken.items() if route.behind]
        if late:
            return True, f"What {name} says arrives; {_listed(late)} is behind and catches up."
        if not facts.last_record:
            return True, f"{name} has said nothing yet; what it says will go to {_listed(taken)}."
        return self._arrival(taken)

    def _arrival(self, taken: Mapping[str, RouteOfContainer]) -> tuple[bool, str]:
        """Where routes take what was read, and nothing is known to stand in the way."""
        name = self._facts.name
        rejects = [route for route, of in taken.items() if of.rejected and not of.delivered]
        picks = [route for route, of in taken.items() if route not in rejects and _has_picked_nothing(of)]
        rest = [route for route in taken if route not in (*rejects, *picks)]
        said = [f"What {name} says arrives by {_listed(rest)}."] if rest else []
        if rejects:
            said.append(
                f"What {name} says is rejected by the receiver of {_listed(rejects)}: "
                f"{taken[rejects[0]].rejection}."
            )
        if picks:
            said.append(
                f"Nothing that it has said since the daemon started meets what {_listed(picks)} asks for."
            )
        return not rejects, " ".join(said)

    def _reading(self) -> str:
        facts = self._facts
        if facts.read == "ignored":
            return f"It is not read: {facts.reason}."
        how = {"file": "from its log file", "api": "through the engine's API", "waiting": "not yet"}[
            facts.read
        ]
        last = (
            f"the last record is of {when(facts.last_record)} UTC, {ago(facts.last_record, self._now)} ago"
            if facts.last_record
            else "no record has been read yet"
        )
        hindered = (
            f" It cannot be read on: {facts.reason}." if facts.reason and facts.read != "waiting" else ""
        )
        corrupt = (
            f" {facts.corrupt_lines} of its lines are left out: they are not what the format of its log says."
            if facts.corrupt_lines
            else ""
        )
        return f"It is read {how} (source {facts.source}); {last}.{hindered}{corrupt}"

    def _route(self, name: str, route: RouteOfContainer) -> list[str]:
        if not route.takes:
            why = [each.text for each in route.conditions if each.holds is False]
            found = self._wrapped(f"{name}: does not take it", "  ", DIM)
            return found + [
                line for text in why for line in self._wrapped(f"✗ {text}", "    ", hanging="      ")
            ]
        well = route.up and not route.hindrance
        stands = "PAUSED" if route.paused else "DOWN"
        state = "delivers" if route.up else f"{stands} since {when(route.since)} UTC"
        found = self._wrapped(f"{name}: takes it, {state} ({route.sink})", "  ", GOOD if well else BAD)
        said: list[str] = []
        if not route.up:
            said.append(f"{route.reason or 'its sink does not answer'}")
        if route.hindrance:
            said.append(route.hindrance)
        if route.streams:
            said.append(f"only {' and '.join(route.streams)}")
        depends = [each.text for each in route.conditions if each.holds is None]
        if depends:
            said.append(f"of its records those with {' and '.join(depends)}")
        said += self._deliveries(name, route)
        if route.behind:
            said.append("it is behind, and is read for apart until it has caught up")
        if route.lag_seconds >= 1:
            said.append(f"the oldest record that waits (of any container) is {span(route.lag_seconds)} old")
        if route.last_delivery:
            answer = f"; the receiver answered: {route.answer}" if route.answer else ""
            said.append(f"its sink took something {ago(route.last_delivery, self._now)} ago{answer}")
        return found + [
            line for text in said for line in self._wrapped(f"- {text}", "    ", hanging="      ")
        ]

    def _deliveries(self, name: str, route: RouteOfContainer) -> list[str]:
        """What has become of what it takes."""
        said: list[str] = []
        if route.delivered:
            said.append(f"delivered up to {when(route.delivered)} UTC, {ago(route.delivered, self._now)} ago")
        elif route.acknowledged:
            said.append(
                "nothing of it was delivered since the daemon started; all is accounted for up to "
                f"{when(route.acknowledged)} UTC, {ago(route.acknowledged, self._now)} ago"
            )
        else:
            said.append("nothing of it has been delivered yet")
        if route.spooled:
            said.append(f"{route.spooled} records, of any container, wait in its spool")
        if route.rejected:
            said.append(
                f"{route.rejected} of its records were rejected since the daemon started, the last with: "
                f"{route.rejection} (`logroute deadletters list {name}`)"
            )
        if route.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(route.dropped.items()))
            said.append(f"the route has dropped records, of any container: {reasons}")
        if route.waiting:
            said.append("what was read after that waits for a delivery")
        return said

    def _wrapped(self, text: str, indent: str, colour: str = "", *, hanging: str | None = None) -> list[str]:
        lines = textwrap.wrap(
            visible(text),
            self._width,
            initial_indent=indent,
            subsequent_indent=indent if hanging is None else hanging,
            break_on_hyphens=False,
        )
        if not self._colour or not colour:
            return lines
        return [f"{colour}{line}{END}" for line in lines]


def _has_picked_nothing(route: RouteOfContainer) -> bool:
    """Whether it takes only some records, and has had none since the start."""
    picks = any(condition.holds is None for condition in route.conditions)
    return picks and bool(route.acknowledged) and not (route.delivered or route.rejected or route.waiting)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return " and ".join(filter(None, (", ".join(found[:-1]), found[-1])))
