"""What demo containers say: an access log, a JSON api, a database, a worker with stack traces.

Random words in the proportions of real logs, so that the text compresses 5 to 8 times as real logs do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from random import Random
from typing import TYPE_CHECKING

import msgspec
import trio

from logroute.simulator.records import rfc3339_padded

if TYPE_CHECKING:
    from logroute.simulator.containers import SimulatedContainer, Stream
    from logroute.simulator.engine import SimulatedEngine

Line = tuple["Stream", bytes]
Speaker = Callable[[Random, Callable[[], int]], Iterator[Line]]
"""An endless program: its lines without newlines, in their order."""

TICK_S = 0.02
_BATCH_LINES = 2_000

_TEXT = (
    "account address basket batch billing cache catalog checkout coupon currency customer delivery discount"
    " email export feature gateway image import index inventory invoice item label ledger listing mailer"
    " manifest market media message notice offer order package parcel partner payment picture plan policy"
    " price product profile promotion quota rating receipt refund region report reserve return review sale"
    " schedule search session settings shelf shipment size stock store supplier tax template ticket token"
    " track transfer upload user variant vendor voucher wallet warehouse webhook wishlist zone"
)
_WORDS = _TEXT.split()
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "curl/8.9.1",
    "kube-probe/1.31",
)
_METHODS = ("GET", "GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE")
_STATUSES = (200, 200, 200, 200, 200, 200, 200, 201, 204, 301, 304, 304, 400, 404, 404, 499, 500, 502)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def access_log(random: Random, clock: Callable[[], int]) -> Iterator[Line]:
    """nginx's combined format, and now and then an upstream error on stderr."""
    while True:
        now = rfc3339_padded(clock())
        stamp = f"{now[8:10]}/{_MONTHS[int(now[5:7]) - 1]}/{now[:4]}:{now[11:19]} +0000"
        path = f"/{random.choice(_WORDS)}/{random.choice(_WORDS)}/{random.randrange(5000)}"
        if random.random() < 0.3:
            path += f"?page={random.randrange(20)}&sort={random.choice(_WORDS)}"
        address = f"10.{random.randrange(4)}.{random.randrange(256)}.{random.randrange(256)}"
        request = f"{random.choice(_METHODS)} {path} HTTP/1.1"
        status = random.choice(_STATUSES)
        size = int(random.expovariate(1 / 4000))
        agent = random.choice(_AGENTS)
        yield "stdout", f'{address} - - [{stamp}] "{request}" {status} {size} "-" "{agent}"'.encode()
        if status == 502:
            yield (
                "stderr",
                f"{now[:10].replace('-', '/')} {now[11:19]} [error] 31#31: *{random.randrange(90000)}"
                f" connect() failed (111: Connection refused) while connecting to upstream,"
                f' client: {address}, request: "{request}"'.encode(),
            )


def json_api(random: Random, clock: Callable[[], int]) -> Iterator[Line]:
    """One JSON object a line."""
    levels = ("debug", "info", "info", "info", "info", "info", "warn", "error")
    while True:
        level = random.choice(levels)
        subject = random.choice(_WORDS)
        message = {
            "time": rfc3339_padded(clock())[:23] + "Z",
            "level": level,
            "msg": f"{subject} {random.choice(_WORDS)} {'failed' if level == 'error' else 'done'}",
            "method": random.choice(_METHODS),
            "path": f"/v1/{subject}/{random.randrange(5000)}",
            "status": 500 if level == "error" else random.choice(_STATUSES),
            "took_ms": round(random.lognormvariate(2.5, 1), 1),
            "trace": f"{random.getrandbits(64):016x}",
        }
        yield "stdout", msgspec.json.encode(message)


def database(random: Random, clock: Callable[[], int]) -> Iterator[Line]:
    """postgres: everything on stderr, statements over several lines."""
    while True:
        head = f"{rfc3339_padded(clock())[:23].replace('T', ' ')} UTC [{random.randrange(40, 90)}]"
        table, column = random.choice(_WORDS), random.choice(_WORDS)
        kind = random.random()
        if kind < 0.75:
            took = random.lognormvariate(1, 1.2)
            yield "stderr", f"{head} LOG:  duration: {took:.3f} ms  statement: SELECT {column}".encode()
            yield "stderr", f"\tFROM {table} WHERE {table}.id = {random.randrange(90000)} LIMIT 50".encode()
        elif kind < 0.95:
            took = random.lognormvariate(1, 1)
            yield (
                "stderr",
                f"{head} LOG:  checkpoint complete: wrote {random.randrange(3000)} buffers"
                f" ({random.random() * 9:.1f}%); write={took:.3f} s, total={took + 0.1:.3f} s".encode(),
            )
        else:
            yield "stderr", f'{head} ERROR:  duplicate key value violates "{table}_{column}_key"'.encode()
            yield (
                "stderr",
                f"{head} DETAIL:  Key ({column})=({random.randrange(9000)}) already exists.".encode(),
            )


def worker(random: Random, clock: Callable[[], int]) -> Iterator[Line]:
    """A queue's worker: progress on stdout, Python's tracebacks on stderr."""
    while True:
        now = rfc3339_padded(clock())
        job = f"{random.choice(_WORDS)}.{random.choice(_WORDS)}"
        head = f"{now[:10]} {now[11:19]},{now[20:23]}"
        yield "stdout", f"{head} INFO worker: job {job} #{random.randrange(90000)} started".encode()
        if random.random() < 0.9:
            took = random.lognormvariate(0, 1)
            yield "stdout", f"{head} INFO worker: job {job} finished in {took:.2f}s".encode()
            continue
        yield "stderr", f"{head} ERROR worker: job {job} failed".encode()
        yield "stderr", b"Traceback (most recent call last):"
        for _ in range(random.randrange(2, 7)):
            module, function = random.choice(_WORDS), random.choice(_WORDS)
            yield "stderr", f'  File "/app/{module}.py", line {random.randrange(400)}, in {function}'.encode()
            yield "stderr", f"    return self.{function}({random.choice(_WORDS)}, retry=False)".encode()
        yield "stderr", f"ValueError: {random.choice(_WORDS)} is not a {random.choice(_WORDS)}".encode()


@dataclass(frozen=True, slots=True)
class Role:
    """One service of the demo's shop."""

    service: str
    image: str
    speaker: Speaker
    share: int
    """How much it says beside the others."""


ROLES = (
    Role("web", "nginx:1.27", access_log, 5),
    Role("api", "shop/api:2.4.1", json_api, 4),
    Role("db", "postgres:17", database, 1),
    Role("worker", "shop/worker:2.4.1", worker, 2),
)


@dataclass(eq=False)
class Talk:
    """One container and what it says."""

    container: SimulatedContainer
    lines: Iterator[Line]
    share: int

    def say(self, count: int) -> None:
        """Write the next lines."""
        while count > 0:
            part = list(islice(self.lines, min(count, _BATCH_LINES)))
            for stream, group in groupby(part, key=lambda line: line[0]):
                self.container.write_many([line for _, line in group], stream)
            count -= len(part)


def populate(
    engine: SimulatedEngine,
    count: int = len(ROLES),
    *,
    log_opts: dict[str, str] | None = None,
    roles: Sequence[Role] = ROLES,
) -> list[Talk]:
    """Make and start that many containers of a compose project, as web-1, api-1, db-1, worker-1, web-2."""
    talks = []
    for index in range(count):
        role, number = roles[index % len(roles)], index // len(roles) + 1
        container = engine.create(
            f"{role.service}-{number}",
            image=role.image,
            labels={
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": role.service,
                "com.docker.compose.container-number": str(number),
            },
            log_opts=log_opts,
        )
        container.start()
        random = Random(engine.random.getrandbits(64))
        talks.append(Talk(container, role.speaker(random, engine.clock), role.share))
    return talks


async def chat(talks: Sequence[Talk], *, rate: float = 0.0, total: int | None = None, seed: int = 0) -> int:
    """Let them talk, `rate` lines a second all together (0: as fast as they can); returns how many they said.

    Ends after exactly `total` lines, or never. Containers that do not run are silent; the others say more.
    """
    random = Random(seed)
    said = 0
    started = trio.current_time()
    while total is None or said < total:
        await trio.sleep(TICK_S if rate else 0)
        due = int((trio.current_time() - started) * rate) - said if rate else _BATCH_LINES
        due = min(due, 5 * _BATCH_LINES, due if total is None else total - said)
        running = [talk for talk in talks if talk.container.state.status == "running"]
        if due <= 0 or not running:
            continue
        speakers = Counter(random.choices(running, [talk.share for talk in running], k=due))
        for talk, count in speakers.items():
            talk.say(count)
        said += due
    return said
