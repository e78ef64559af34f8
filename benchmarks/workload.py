"""What containers print in the benchmarks: numbered lines of 150 bytes that compress like real logs.

A program says the same few things over and over: the words come in phrases. As json-file keeps them, the
lines shrink 6.4 times by zstd at level 1, in rows of a megabyte; the logs of our tests' own containers 6.4 to
7.2 times. (Words drawn one by one shrink 4.7 times only, and cost zstd almost twice as much.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from logroute.router.record import iso_time

LINE_BYTES = 150
SECOND = 10**9
BEGIN_NS = 1_763_900_000 * SECOND

_WORDS = [
    "accepted",
    "address",
    "backend",
    "batch",
    "billing",
    "buffer",
    "cache",
    "catalog",
    "checkout",
    "client",
    "closed",
    "commit",
    "connection",
    "customer",
    "deadline",
    "delivery",
    "discount",
    "duration",
    "error",
    "expired",
    "failed",
    "gateway",
    "handler",
    "image",
    "index",
    "invoice",
    "item",
    "latency",
    "level",
    "listing",
    "lookup",
    "market",
    "message",
    "method",
    "missing",
    "notice",
    "offer",
    "order",
    "parcel",
    "partner",
    "path",
    "payment",
    "pending",
    "policy",
    "price",
    "product",
    "queue",
    "rating",
    "refused",
    "region",
    "report",
    "request",
    "reserve",
    "response",
    "retry",
    "route",
    "schedule",
    "search",
    "server",
    "session",
    "shipment",
    "size",
    "status",
    "stock",
    "store",
    "supplier",
    "table",
    "template",
    "ticket",
    "timeout",
    "token",
    "track",
    "transfer",
    "unknown",
    "upstream",
    "user",
    "value",
    "version",
    "warehouse",
    "webhook",
    "worker",
    "zone",
]


def messages(count: int, seed: int = 1) -> Iterator[str]:
    """`<number> <random words>`, each of 150 bytes, as a container prints them (without newlines)."""
    chance = random.Random(seed)
    phrases = [" ".join(chance.choices(_WORDS, k=5)) for _ in range(200)]
    # Tails are made once and drawn from: making them anew would take longer than what is measured.
    tails = [" ".join(chance.choices(phrases, k=6)) for _ in range(20_000)]
    for number in range(count):
        yield f"n {number:08d} {chance.choice(tails)}"[:LINE_BYTES]


def json_lines(count: int, seed: int = 1) -> Iterator[str]:
    """The same as lines of json-file: every tenth on stderr, times some microseconds apart, zeros trimmed."""
    chance = random.Random(seed)
    time_ns = BEGIN_NS
    for number, message in enumerate(messages(count, seed)):
        time_ns += chance.randrange(1_000, 200_000)
        time = iso_time(time_ns).rstrip("Z0").rstrip(".")
        stream = "stdout" if number % 10 else "stderr"
        yield f'{{"log":"{message}\\n","stream":"{stream}","time":"{time}Z"}}\n'


def write_log(path: Path, count: int) -> None:
    """A log file of so many lines, whole or not there."""
    part = path.with_suffix(".part")
    with part.open("w") as file:
        file.writelines(json_lines(count))
    part.rename(path)
