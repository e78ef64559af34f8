"""What containers print in the benchmarks: numbered lines of 150 bytes that compress like real logs.

A program says the same few things over and over: the words come in phrases. As json-file keeps them, the
lines shrink 6.4 times by zstd at level 1, in rows of a megabyte; the logs of our tests' own containers 6.4 to
7.2 times. (Words drawn one by one shrink 4.7 times only, and cost zstd almost twice as much.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from logroute.router.times import iso_time

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


SENSITIVE = (
    "ada.lovelace@example.com",
    "10.20.30.40",
    "4111 1111 1111 1111",
    "Bearer 0a1b2c3d4e5f67890a1b2c3d",
    "password=hunter2",
)
"""What `redact` finds in one of fifty lines, where the log shall have some."""
SENSITIVE_EVERY = 50


def messages(count: int, seed: int = 1, *, sensitive: bool = False) -> Iterator[str]:
    """`<number> <random words>`, each of 150 bytes, as a container prints them (without newlines)."""
    chance = random.Random(seed)
    phrases = [" ".join(chance.choices(_WORDS, k=5)) for _ in range(200)]
    # Tails are made once and drawn from: making them anew would take longer than what is measured.
    tails = [" ".join(chance.choices(phrases, k=6)) for _ in range(20_000)]
    for number in range(count):
        tail = chance.choice(tails)
        if sensitive and not number % SENSITIVE_EVERY:
            tail = f"{chance.choice(SENSITIVE)} {tail}"
        yield f"n {number:08d} {tail}"[:LINE_BYTES]


def json_lines(count: int, seed: int = 1, *, sensitive: bool = False) -> Iterator[str]:
    """The same as lines of json-file: every tenth on stderr, times some microseconds apart, zeros trimmed."""
    chance = random.Random(seed)
    time_ns = BEGIN_NS
    for number, message in enumerate(messages(count, seed, sensitive=sensitive)):
        time_ns += chance.randrange(1_000, 200_000)
        time = iso_time(time_ns).rstrip("Z0").rstrip(".")
        stream = "stdout" if number % 10 else "stderr"
        yield f'{{"log":"{message}\\n","stream":"{stream}","time":"{time}Z"}}\n'


def log_of(folder: Path, count: int, *, sensitive: bool = False) -> Path:
    """A log file of so many lines, the same for all who ask; whole or not there."""
    path = folder / f"{'sensitive-' * sensitive}{count}.log"
    if not path.exists():
        part = path.with_suffix(".part")
        with part.open("w") as file:
            file.writelines(json_lines(count, sensitive=sensitive))
        part.rename(path)
    return path
