"""How commands print lists: tables, times and sizes that fit the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime

from logroute.cli.columns import beginning, cells, fitted

WIDTH = 80
"""Where there is no terminal."""


def terminal_width() -> int:
    """Columns."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def room() -> int | None:
    """Columns that lines may take; None: as many as they want, as no terminal shows them."""
    return terminal_width() if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> list[str]:
    """The lines of a table; the columns of these numbers stand at the right. Whole, but on a terminal."""
    width = room()
    lines = aligned(head, rows, right=right)
    return lines if width is None else [cut(line, width) for line in lines]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> list[str]:
    """Likewise, as wide as it is."""
    widths = [max(cells(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            " " * (widths[column] - cells(cell)) + cell if column in right else fitted(cell, widths[column])
            for column, cell in enumerate(row)
        ).rstrip()
        for row in (head, *rows)
    ]


def cut(line: str, width: int) -> str:
    return line if cells(line) <= width else beginning(line, width - 1) + "…"


def when(time: str) -> str:
    """To the second, UTC."""
    return f"{time[:10]} {time[11:19]}" if time else "-"


def size(size_bytes: int) -> str:
    left = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if left < 1024:
            return f"{left:.0f} {unit}"
        left /= 1024
    return f"{left:.1f} GiB"


def span(seconds: float) -> str:
    """A length of time in one or two words: `12s`, `3m`, `2h 5m`, `4d`."""
    whole = max(0, int(seconds))
    for unit, length, below, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length}{unit}" + (f" {rest}{below}" if rest else "")
    return f"{whole // 60}m" if whole >= 60 else f"{whole}s"


def ago(time: str, now: str) -> str:
    """How long before `now` that was; both as records have them."""
    if not time:
        return "-"
    try:
        passed = datetime.fromisoformat(now[:19]) - datetime.fromisoformat(time[:19])
    except ValueError:
        return "-"
    return span(passed.total_seconds())
