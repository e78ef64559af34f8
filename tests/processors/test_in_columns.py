"""What processors make of lines in columns is what they make of each line by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from logroute.processors import ColumnProcessor, Processor
from logroute.processors._alike import FEW, SIGHTS
from logroute.router.chain import PIECE, Chain, Stage, StagePlan
from logroute.router.column_batch import ColumnBatch, in_columns
from logroute.router.match import EVERYTHING, Match
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Record
from logroute.router.selection import Chooser
from logroute.sinks.record_json import encode_batch
from tests.processors.conftest import WEB, made

LEVELS = ("info", "warn", "error")


def json_line(number: int) -> str:
    return json.dumps(
        {
            "ts": f"2026-11-23T20:06:{26 + number % 9}.{number % 1000:03d}Z",
            "level": LEVELS[number % 3],
            "msg": f"order {number}",
            "user": {"name": f"ü{number}", "ids": [number]},
            "status": 200 + number % 3,
            "none": None,
        }
    )


def logfmt_line(number: int) -> str:
    return (
        f'time=2026-11-23T20:06:26.{number:03d}Z level={LEVELS[number % 3]} msg="order {number}" n={number}'
    )


def nginx_line(number: int) -> str:
    user = "-" if number % 2 else "ada"
    return (
        f"203.0.113.{number % 256} - {user} [23/Nov/2026:20:06:{26 + number % 9} +0000] "
        f'"GET /orders/{number} HTTP/1.1" 200 {number} "-" "curl/8"'
    )


def klog_line(number: int) -> str:
    return f"{'IWE'[number % 3]}1123 20:06:26.{number:06d} {number + 1} main.go:{number + 1}] order {number}"


def text_line(number: int) -> str:
    return f"2026-11-23 20:06:26 {('INFO', 'WARN', 'nothing')[number % 3]} order {number}"


KINDS: dict[str, tuple[Callable[[int], str], dict[str, Any]]] = {
    "json": (json_line, {"type": "json"}),
    "json to the root": (json_line, {"type": "json", "target": "root"}),
    "json, kept": (json_line, {"type": "json", "keep": True}),
    "logfmt": (logfmt_line, {"type": "logfmt"}),
    "auto, json": (json_line, {"type": "auto"}),
    "auto, logfmt": (logfmt_line, {"type": "auto"}),
    "nginx": (nginx_line, {"type": "format", "name": "nginx"}),
    "klog": (klog_line, {"type": "format", "name": "klog"}),
    "level": (text_line, {"type": "level"}),
}
kinds = pytest.mark.parametrize(("line", "options"), KINDS.values(), ids=KINDS)


def time_of(number: int) -> str:
    return f"2026-11-23T20:06:26.{number + 1:09d}Z"


def record_of(number: int, line: str) -> Record:
    return Record(line, "stderr" if number % 3 else "stdout", time_of(number))


def records(lines: Sequence[str], end: str = "") -> list[Record]:
    return [record_of(number, line + end) for number, line in enumerate(lines)]


def as_read(lines: Sequence[str], *, newlines: bool = True) -> Batch:
    return Batch(
        WEB,
        records(lines, "\n" if newlines else ""),
        before=BEGINNING,
        after=BEGINNING,
        size_bytes=1000,
        newlines=newlines,
    )


def processor_of(options: dict[str, Any]) -> Processor[Any]:
    return made(options["type"], **{key: value for key, value in options.items() if key != "type"})


def one_by_one(lines: Sequence[str], options: dict[str, Any]) -> list[Any]:
    of = json.dumps(options)
    return [alone(number, line, of) for number, line in enumerate(lines)]


@cache
def by_itself(options: str) -> ColumnProcessor[Any]:
    processor = processor_of(json.loads(options))
    assert isinstance(processor, ColumnProcessor)
    return processor


@cache
def alone(number: int, line: str, options: str) -> Any:
    """What becomes of a line by itself: of the same lines it is asked a hundred times."""
    processor = by_itself(options)
    batch = Batch(WEB, [record_of(number, line)], before=BEGINNING, after=BEGINNING, size_bytes=1, ready=True)
    (record,) = processor.by_record(batch).records
    return said(record)


def said(record: Record) -> tuple[Any, ...]:
    fields = record.fields or None
    return (
        (record.message, record.stream, record.time, record.logged, record.level, record.error),
        fields,
        bool(fields) and record.at_root,
    )


def stage(options: dict[str, Any]) -> Stage:
    return Stage(StagePlan("it", EVERYTHING, partial(processor_of, options), str(options)))


def through_chain(batch: Batch, *stages: Stage) -> Batch:
    return trio.run(Chain(stages, owns=True).apply, batch, {})


@kinds
@pytest.mark.parametrize("newlines", [True, False])
def test_lines_of_one_program_go_on_in_columns(
    line: Callable[[int], str], options: dict[str, Any], newlines: bool
) -> None:
    lines = [line(number) for number in range(2 * PIECE + PIECE // 2)]
    first = stage(options)
    result = through_chain(as_read(lines, newlines=newlines), first)
    assert isinstance(result, ColumnBatch)
    assert result.details is not None
    assert (first.books.records_in, first.books.records_out) == (len(lines), len(lines))
    encoded = encode_batch(result)
    assert result.details is not None  # no record was made for that
    assert [said(record) for record in result.records] == one_by_one(lines, options)
    assert encode_batch(result) == encoded


@kinds
@given(data=st.data())
def test_other_lines_among_them_change_nothing(
    line: Callable[[int], str], options: dict[str, Any], data: st.DataObject
) -> None:
    odd = st.sampled_from(["", "{", "[1]", "{}", "Error: x", '{"level":"info","msg":1}', "a=1", "é", "\\"])
    lines = [line(number) for number in range(PIECE + FEW)]
    at_once = data.draw(st.integers(0, 4))
    for _ in range(at_once):
        lines[data.draw(st.integers(0, len(lines) - 1))] = data.draw(odd | st.text(max_size=9))
    lines = [each.replace("\n", " ") for each in lines]
    result = through_chain(as_read(lines), stage(options))
    assert [said(record) for record in result.records] == one_by_one(lines, options)


@kinds
@given(cut=st.integers(0, 3 * FEW), every=st.integers(1, 5))
def test_columns_are_parted_and_chosen_as_records_are(
    line: Callable[[int], str], options: dict[str, Any], cut: int, every: int
) -> None:
    lines = [line(number) for number in range(3 * FEW)]
    processor = processor_of(options)
    assert isinstance(processor, ColumnProcessor)
    made_of: Batch | None = None
    for _ in range(SIGHTS):  # a set of keys is learned when it has come again and again
        (piece,) = in_columns(as_read(lines), len(lines))
        made_of = processor.columns(piece)
    assert isinstance(made_of, ColumnBatch)
    expected = one_by_one(lines, options)
    taken = bytes(number % every == 0 for number in range(len(lines)))
    chosen = made_of.chosen(taken)
    assert chosen is not None
    lines_of_all = encode_batch(made_of).splitlines()
    assert [said(r) for r in chosen.records] == [e for e, t in zip(expected, taken, strict=True) if t]
    if 0 < cut < len(lines):
        first, second = made_of.parted(cut)
        assert encode_batch(first).splitlines() + encode_batch(second).splitlines() == lines_of_all
        assert [said(r) for part in (first, second) for r in part.records] == expected


def test_a_level_that_json_says_is_compared_in_columns() -> None:
    lines = [json_line(number) for number in range(2 * PIECE)]
    result = through_chain(as_read(lines), stage({"type": "json"}), stage({"type": "level"}))
    kept = Chooser(Match.parse({"level": ">=warn"})).batch_of(result)
    for each in (result, kept):
        assert isinstance(each, ColumnBatch)
        assert each.details is not None
    assert [r.message for r in kept.records] == [f"order {n}" for n in range(2 * PIECE) if n % 3]
    assert [r.fields["status"] for r in kept.records if r.fields] == [
        200 + n % 3 for n in range(2 * PIECE) if n % 3
    ]


PATHS = ("status", "user.name", "user", "none", "nothing", "nothing.below", "bytes", "n", "level", "path")


@kinds
@pytest.mark.parametrize("path", PATHS)
def test_a_field_is_compared_in_columns_as_in_records(
    line: Callable[[int], str], options: dict[str, Any], path: str
) -> None:
    lines = [line(number) for number in range(2 * PIECE)]
    for wanted in ("201", ">=201", "*", "ü7", "*/7", '/"name"/'):
        result = through_chain(as_read(lines), stage(options))
        chooser = Chooser(Match.parse({f"fields.{path}": wanted}))
        in_columns_ = chooser.batch_of(result).messages
        of_records = result.with_records(result.records)
        assert in_columns_ == chooser.batch_of(of_records).messages


def test_records_that_a_match_leaves_out_are_never_made() -> None:
    lines = [json_line(number) for number in range(2 * PIECE)]
    result = through_chain(as_read(lines), stage({"type": "json"}))
    kept = Chooser(Match.parse({"fields.status": ">=202"})).batch_of(result)
    assert isinstance(result, ColumnBatch)
    assert result.details is not None
    assert kept.messages == [f"order {n}" for n in range(2 * PIECE) if n % 3 == 2]
