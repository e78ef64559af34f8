"""Containers that write numbered records, and what the engine has given up of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import trio

from logroute.simulator import SimulatedContainer, SimulatedEngine
from logroute.simulator.json_file import JsonFileLog
from tests.oracle.history import History, Read, StreamName
from tests.oracle.records import payload, text_of

TICK_S = 0.02
KNOWN_S = 2.0
STREAMS = ("stdout", "stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a container's log is kept, and read."""

    prefix: str
    read: Read
    max_size: str
    max_file: int
    compress: bool = False
    turns: bool = True
    """Its log is rotated, so it writes no lines of several of the engine's pieces: a rotation might take the
    first of them."""

    @property
    def log_opts(self) -> dict[str, str]:
        compress = {"compress": "true"} if self.compress else {}
        return {"max-size": self.max_size, "max-file": str(self.max_file), **compress}


KINDS = (
    Kind("tight", "file", "60k", 3),
    Kind("squeezed", "file", "100k", 4, compress=True),
    Kind("roomy", "file", "50m", 20, turns=False),
    Kind("asked", "api", "50m", 20, turns=False),
    Kind("turning", "api", "400k", 20),
)


@dataclass(eq=False)
class Writer:
    """One container, and in which of its files what it wrote lies."""

    kind: Kind
    container: SimulatedContainer
    created: float
    # For each file that the log has begun: its number, and how much each stream had written before it.
    files: list[tuple[int, dict[StreamName, int]]] = field(default_factory=list)


class Workload:
    """Writes `rate` records a second, all containers together."""

    def __init__(self, engine: SimulatedEngine, history: History, random: Random, rate: float) -> None:
        self.engine = engine
        self.history = history
        self.rate = rate
        self._random = random
        self._made = 0
        self.writers = [self._create(kind) for kind in KINDS]

    def _create(self, kind: Kind) -> Writer:
        self._made += 1
        name = f"{kind.prefix}-{self._made}"
        container = self.engine.create(name, log_opts=kind.log_opts, restart_policy="always")
        container.start()
        return Writer(kind, container, self.history.now())

    async def run(self) -> None:
        """Write until cancelled; containers that do not run are silent."""
        due = 0.0
        before = self.history.now()
        while True:
            await trio.sleep(TICK_S)
            now = self.history.now()
            due += (now - before) * self.rate
            before = now
            while due >= 1:
                due -= 1
                writer = self._random.choice(self.writers)
                if writer.container.state.status == "running":
                    self.write(writer)

    def write(self, writer: Writer) -> None:
        """One record."""
        random, container = self._random, writer.container
        stream = random.choice(STREAMS)
        key = self.history.next_key(container.name, stream)
        line = text_of(key, payload(random, long=not writer.kind.turns)).encode() + b"\n"
        before = self._totals(writer)
        self.history.write(key, len(line), writer.kind.read, self.history.now())
        container.write(line, "stderr" if stream == "stderr" else "stdout")
        self._note_rotation(writer, before)

    def known(self) -> list[Writer]:
        """Those that are there for so long that a daemon has surely opened their logs."""
        now = self.history.now()
        return [w for w in self.writers if now - w.created > KNOWN_S] or self.writers[:1]

    def rotate(self, writer: Writer) -> None:
        """Write until its log is rotated."""
        log = _log(writer)
        before = log.rotations
        while log.rotations == before and writer.container.state.status == "running" and self.engine.is_up:
            self.write(writer)

    def remove(self, writer: Writer) -> None:
        """`docker rm -f`, and another container of that kind in its place."""
        if not self.engine.is_up:
            return  # nobody to ask
        writer.container.remove(force=True)
        for name, total in self._totals(writer).items():
            self.history.written[name].gone.append((total, self.history.now()))
            self.history.written[name].removed = True
        self.writers[self.writers.index(writer)] = self._create(writer.kind)

    def restart(self, writer: Writer) -> None:
        """`docker restart`."""
        if self.engine.is_up and writer.container.is_running:
            writer.container.restart()

    def _note_rotation(self, writer: Writer, before: dict[StreamName, int]) -> None:
        """If the last record began a file: note what lay in the files that are no more.

        What waited in pipes while the engine was away may have filled several files; all of it counts as in
        the oldest of them.
        """
        number = _log(writer).rotations
        if writer.files and writer.files[-1][0] == number:
            return
        writer.files.append((number, before))
        oldest = number - writer.kind.max_file + 1
        if writer.files[0][0] >= oldest:
            return
        while writer.files[0][0] < oldest:
            writer.files.pop(0)
        for name, total in writer.files[0][1].items():
            self.history.written[name].gone.append((total, self.history.now()))

    def _totals(self, writer: Writer) -> dict[StreamName, int]:
        names = [StreamName(writer.container.name, stream) for stream in set(STREAMS)]
        written = self.history.written
        return {name: len(written[name].times) for name in names if name in written}


def _log(writer: Writer) -> JsonFileLog:
    assert isinstance(writer.container.log, JsonFileLog)
    return writer.container.log
