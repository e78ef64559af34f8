"""Lines that are parsed on their way from a finished log to nothing, each kind beside its floor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.engine import engine_process
from benchmarks.throughput import JSON, NULL, Pipeline, Result, in_turns
from benchmarks.workload import BEGIN_NS, messages
from logroute.router.times import iso_time

Line = Callable[[random.Random, int, str], str]
"""What a container prints: chance, the time in ns, some words."""


def _values(chance: random.Random, time_ns: int, words: str) -> dict[str, str | int | float]:
    """Twelve fields, 300 bytes as JSON."""
    return {
        "time": iso_time(time_ns),
        "level": chance.choice(("debug", "info", "info", "info", "warn", "error")),
        "msg": words[11:71],
        "method": chance.choice(("GET", "POST")),
        "path": f"/api/v1/orders/{chance.randrange(100_000)}",
        "status": chance.choice((200, 200, 200, 404, 502)),
        "bytes": chance.randrange(100_000),
        "duration": chance.randrange(10_000) / 1000,
        "user": f"user-{chance.randrange(1000)}",
        "trace_id": f"{chance.getrandbits(64):016x}",
        "caller": "server/handler.go:127",
        "region": "eu-central-1",
    }


def json_line(chance: random.Random, time_ns: int, words: str) -> str:
    return msgspec.json.encode(_values(chance, time_ns, words)).decode()


def logfmt_line(chance: random.Random, time_ns: int, words: str) -> str:
    return " ".join(
        f'{key}="{value}"' if " " in str(value) else f"{key}={value}"
        for key, value in _values(chance, time_ns, words).items()
    )


def nginx_line(chance: random.Random, time_ns: int, words: str) -> str:
    date, clock = iso_time(time_ns)[:10].split("-"), iso_time(time_ns)[11:19]
    return (
        f"203.0.113.{chance.randrange(256)} - - [{date[2]}/Nov/{date[0]}:{clock} +0000] "
        f'"GET /{words[11:40].replace(" ", "/")} HTTP/1.1" {chance.choice((200, 200, 304, 404))} '
        f'{chance.randrange(100_000)} "https://shop.example/cart" '
        '"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"'
    )


def level_line(chance: random.Random, time_ns: int, words: str) -> str:
    time, level = iso_time(time_ns), chance.choice(("DEBUG", "INFO ", "INFO ", "INFO ", "WARN ", "ERROR"))
    return f"{time[:10]} {time[11:23]} {level} [worker-{chance.randrange(8)}] {words[11:120]}"


def word_line(chance: random.Random, time_ns: int, words: str) -> str:
    time, level = iso_time(time_ns), chance.choice(("DEBUG", "INFO ", "INFO ", "INFO ", "WARN ", "ERROR"))
    return f"{time[:10]} {time[11:23]} [worker-{chance.randrange(8)}] {level} {words[11:120]}"


def trace_line(chance: random.Random, time_ns: int, words: str) -> str:
    """One line in twenty belongs to the one before."""
    if int(words[2:10]) % 20 == 5:
        return f"\tat shop.orders.Order.pay{chance.randrange(1000)}(Order.java:{chance.randrange(900)})"
    return level_line(chance, time_ns, words)


KINDS: tuple[tuple[Pipeline, Line], ...] = (
    (Pipeline("12 fields → json → null", {"n": NULL}, 4.5, processors="{type: json}"), json_line),
    # The limit is our own: json's, and what writing costs a line of twice the usual size.
    (Pipeline("12 fields → json → JSON file", {"n": JSON}, 8.5, processors="{type: json}"), json_line),
    (Pipeline("12 fields → logfmt → null", {"n": NULL}, 12, processors="{type: logfmt}"), logfmt_line),
    (Pipeline("nginx → null", {"n": NULL}, 8, processors="{type: format, name: nginx}"), nginx_line),
    (Pipeline("level by text → null", {"n": NULL}, 4.5, processors="{type: level}"), level_line),
    (Pipeline("level behind a name → null", {"n": NULL}, 4.5, processors="{type: level}"), word_line),
    (
        Pipeline("traces → multiline → null", {"n": NULL}, 4.5, processors="{type: multiline, preset: java}"),
        trace_line,
    ),
    (Pipeline("12 fields → auto → null", {"n": NULL}, 4.5, processors="{type: auto}"), json_line),
)


def log_lines(line: Line, count: int, seed: int = 1) -> Iterator[str]:
    """As json-file keeps them; what a line says of the time is the engine's, or somewhat before."""
    chance = random.Random(seed)
    encode = msgspec.json.Encoder().encode
    time_ns = BEGIN_NS
    for number, words in enumerate(messages(count, seed)):
        time_ns += chance.randrange(1_000, 200_000)
        log = line(chance, time_ns, words) + "\n"
        stream = "stdout" if number % 10 else "stderr"
        yield encode({"log": log, "stream": stream, "time": iso_time(time_ns)}).decode() + "\n"


def measure(folder: Path, lines: int, runs: int) -> list[Result]:
    """All kinds, one after the other, each `runs` times beside the floor of the same log."""
    results: list[Result] = []
    for number, (pipeline, line) in enumerate(KINDS):
        below = folder / f"parsing-{number}"
        below.mkdir()
        log = below / "lines.log"
        with log.open("w") as file:
            file.writelines(log_lines(line, lines))
        with engine_process(below / "engine", "finished", str(log)) as host:
            results += in_turns(below, log, lines, runs, [pipeline], host)
        log.unlink()
    return results
