"""Faults: which there are, a schedule of them drawn from a seed, and what each does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from random import Random

import trio

from tests.oracle.daemon import Daemon
from tests.oracle.disks import Disk
from tests.oracle.history import History, RouteHistory, during
from tests.oracle.receivers import RECEIVERS, Receiver
from tests.oracle.workload import Workload, Writer

CALM_S = 3.0
"""Before the first fault: everything is found, flows, and was acknowledged."""
BETWEEN_S = 2.5
"""From one fault to the next, on average; many overlap."""

ROTATIONS_S = (0.4, 1.0)
"""From one rotation to the next, where logs are rotated again and again. Logs have three files and more: a
daemon that gets no processor for a second still sees every one of them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule."""

    at_s: float
    """Since the daemon first had started."""
    name: str
    target: str
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.at_s:8.2f} s  {self.name} {self.target} {self.lasts_s:.2f} s"


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of fault: what it is, whom it can hit, and for how long."""

    what: str
    targets: tuple[str, ...]
    shortest_s: float = 1.0
    longest_s: float = 10.0


def _mode(name: str, what: str, longest_s: float = 10.0) -> Sort:
    """A way in which some receivers can misbehave."""
    targets = [target for target, receiver in RECEIVERS.items() if name in receiver.modes]
    return Sort(f"a receiver {what}", tuple(targets), longest_s=longest_s)


SORTS = {
    "kill": Sort("kill -9 of the daemon, which then stays down", ("daemon",), 0.0, 4.0),
    "terminate": Sort("SIGTERM of the daemon, which then stays down", ("daemon",), 0.0, 4.0),
    "reload": Sort("SIGHUP with a changed or an invalid configuration", ("daemon",), 1.0, 2.0),
    "engine-restart": Sort("the engine is away, its containers run on or end", ("engine",), 0.2, 5.0),
    "container-restart": Sort("docker restart", ("container",), 0.0, 0.0),
    "rotation": Sort("a log is rotated again and again under load", ("container",), 0.5, 3.0),
    "remove": Sort("docker rm -f while everything flows", ("container",), 0.0, 0.0),
    "remove-behind": Sort("docker rm -f while a receiver hangs or refuses", tuple(RECEIVERS), 2.0),
    "disk-full": Sort("the disk of a file route is full", ("disk",)),
    "disk-hang": Sort(
        "the disk of a file route hangs; who writes cannot even be killed", ("disk",), 1.0, 20.0
    ),
    "state-full": Sort("the disk of the state directory is full", ("state",), 1.0, 6.0),
    "clock": Sort("the host's clock jumps by up to two hours, and stays there", ("clock",), 0.0, 0.0),
    "refuse": _mode("refuse", "closes its port"),
    "hang": _mode("hang", "accepts, and neither reads nor answers", 25.0),
    "slow": _mode("slow", "reads 10 KB a second"),
    "reset": _mode("reset", "resets connections in the middle of a read"),
    "trickle": _mode("trickle", "closes after each byte"),
    "fail": _mode("fail", "reads a request, then answers 5xx or resets"),
    "nonsense": _mode("nonsense", "answers what no protocol has"),
    "busy": _mode("busy", "answers 429 with Retry-After"),
    "reject": _mode("reject", "answers 413 to large requests, 400 to bad records"),
}


def schedule(random: Random, names: Collection[str], targets: Collection[str], load_s: float) -> list[Fault]:
    """Faults within so many seconds: each name in turn, shuffled; one at a time for a target."""
    usable = {name: [t for t in SORTS[name].targets if t in targets] for name in sorted(names)}
    playable = [name for name, of in usable.items() if of]
    free_at: defaultdict[str, float] = defaultdict(float)
    faults: list[Fault] = []
    deck: list[str] = []
    at_s = CALM_S
    while playable and at_s < load_s:
        deck = deck or random.sample(playable, k=len(playable))
        name = deck.pop()
        sort, target = SORTS[name], random.choice(usable[name])
        lasts_s = random.uniform(sort.shortest_s, sort.longest_s)
        begin_s = max(at_s, free_at[target])
        if begin_s + lasts_s < load_s:
            faults.append(Fault(round(begin_s, 2), name, target, round(lasts_s, 2)))
            free_at[target] = begin_s + lasts_s + random.uniform(0.1, 3.0)
        at_s += random.expovariate(1 / BETWEEN_S)
    return sorted(faults, key=lambda fault: fault.at_s)


@dataclass(slots=True)
class Faults:
    """Does what a schedule says."""

    history: History
    workload: Workload
    daemon: Daemon
    receivers: dict[str, Receiver]
    disks: dict[str, Disk]
    configurations: list[str]
    """Valid ones, to change between."""
    random: Random
    say: Callable[[str], None]
    # No daemon shall start while the configuration is invalid.
    _reloading: trio.Lock = field(default_factory=trio.Lock)

    async def play(self, faults: list[Fault]) -> None:
        """All of them, each at its time from now on; returns when the last one has ended."""
        began = self.history.now()
        async with trio.open_nursery() as nursery:
            for fault in faults:
                await trio.sleep(max(0.0, began + fault.at_s - self.history.now()))
                self.say(f"{self.history.now():8.2f} s  {fault.name} {fault.target}")
                nursery.start_soon(self._apply, fault)

    async def _apply(self, fault: Fault) -> None:
        name, lasts_s = fault.name, fault.lasts_s
        if fault.target in self.receivers and name != "remove-behind":
            with self.receivers[fault.target].misbehaving(name):
                await trio.sleep(lasts_s)
            return
        match name:
            case "kill" | "terminate":
                await self._end_daemon(name, lasts_s)
            case "reload":
                await self._reload(lasts_s)
            case "engine-restart":
                await self._restart_engine(lasts_s)
            case "container-restart":
                self.workload.restart(self._writer())
            case "rotation":
                await self._rotate(lasts_s)
            case "remove":
                self.workload.remove(self._writer())
            case "remove-behind":
                with self.receivers[fault.target].misbehaving(self.random.choice(("hang", "refuse"))):
                    await trio.sleep(lasts_s / 2)
                    self.workload.remove(self._writer())
                    await trio.sleep(lasts_s / 2)
            case "clock":
                self.daemon.clock.jump(self.random.randrange(-7200, 7200))
            case _:
                await self._disturb_disk(name, fault.target, lasts_s)

    def _writer(self) -> Writer:
        return self.random.choice(self.workload.known())

    async def _end_daemon(self, name: str, down_s: float) -> None:
        """Also while it starts, or ends."""
        async with self._reloading:
            pass
        await (self.daemon.kill if name == "kill" else self.daemon.terminate)(down_s)

    async def _reload(self, lasts_s: float) -> None:
        async with self._reloading:
            await self.daemon.until_up()
            await self._change_configuration(lasts_s)

    async def _change_configuration(self, lasts_s: float) -> None:
        before = self.daemon.config.read_text()
        if self.random.random() < 0.5:
            self.daemon.configure(self.random.choice(self.configurations))
            self.daemon.reload()
            await trio.sleep(lasts_s)
        else:
            self.daemon.configure(before + "\nnonsense: [\n")
            self.daemon.reload()
            await trio.sleep(lasts_s)
            self.daemon.configure(before)

    async def _restart_engine(self, down_s: float) -> None:
        with during(self.history.engine_down, self.history.now):
            await self.workload.engine.restart(
                down_s, containers=self.random.choice(("die", "continue", "continue"))
            )

    async def _rotate(self, lasts_s: float) -> None:
        until = trio.current_time() + lasts_s
        while trio.current_time() < until:
            self.workload.rotate(self.random.choice([w for w in self.workload.writers if w.kind.turns]))
            await trio.sleep(self.random.uniform(*ROTATIONS_S))

    async def _disturb_disk(self, name: str, target: str, lasts_s: float) -> None:
        disk = self.disks[target]
        async with AsyncExitStack() as stack:
            if name == "state-full":
                stack.enter_context(during(self.history.unstored, self.history.now))
                hindered = list(self.history.routes.values())
            else:
                hindered = [self.history.routes[target]]
            stack.enter_context(self._disturbing(hindered))
            await stack.enter_async_context(disk.hanging() if name == "disk-hang" else disk.full())
            await trio.sleep(lasts_s)

    def _disturbing(self, routes: list[RouteHistory]) -> ExitStack:
        stack = ExitStack()
        for route in routes:
            stack.enter_context(during(route.disturbed, self.history.now))
        return stack
