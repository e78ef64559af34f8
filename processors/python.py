"""Python: a function of the user's is given a batch's records and returns them, as it likes."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import count
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._times import BEYOND, parse_time
from logroute.router.record import STREAMS, Batch, DetailedRecord, Record, detailed

Function = Callable[..., Iterable[Record] | None]


class PythonOptions(ProcessorOptions):
    """Have a function of your own do it."""

    type: Literal["python"] = "python"
    function: str = Field(examples=["logroute_slow:slow_queries"])
    """`package.module:name`, installed beside logroute or in a folder of `PYTHONPATH`. It is given a list of
    records, and the container too if it takes two arguments, and returns those that go on."""

    @field_validator("function")
    @classmethod
    def _function_is_one(cls, function: str) -> str:
        load(function)
        return function


@PROCESSORS.register(PythonOptions)
class PythonProcessor(Processor[PythonOptions]):
    """The records are the function's own to change: where it raises, they go on as they were."""

    changes: ClassVar[bool] = False
    # What a function remembers nobody knows, so it is its route's own.
    separable: ClassVar[bool] = False

    def __init__(self, options: PythonOptions) -> None:
        super().__init__(options)
        self._function = load(options.function)
        self._with_origin = _takes_origin(self._function)

    def apply(self, batch: Batch) -> Batch:
        given = [_copy(record) for record in batch.records]
        # Held here, because the function may do to its list what it likes.
        copies: Copies = {id(copy): (copy, record) for copy, record in zip(given, batch.records, strict=True)}
        made = self._function(given, batch.origin) if self._with_origin else self._function(given)
        if made is None:
            raise TypeError(f"{self.options.function} has returned nothing: it must return the records")
        records = list(made)
        if mistake := _check(records, copies):
            raise TypeError(f"{self.options.function} has returned {mistake}")
        _tell_apart(records, copies)
        self.books.added += max(0, len(records) - len(copies))
        return batch.with_records(records)


def load(function: str) -> Function:
    """The function of that name. Raises ValueError, which says what is wrong."""
    module, colon, name = function.partition(":")
    if not colon or not module or not name:
        raise ValueError("expected package.module:name")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module and not module.startswith(f"{error.name}."):
            raise ValueError(f"{module} cannot be imported: {error}") from error
        raise ValueError(
            f"there is no module {module}: install it beside logroute, or have its folder in PYTHONPATH"
        ) from error
    except BaseException as error:  # a stranger's module may do anything
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # ctrl-C, while the daemon starts; a reload is not in the main thread
        raise ValueError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"there is no function {name} in {module}")
    if inspect.iscoroutinefunction(found):
        raise ValueError(f"{function} is async: a function that treats records waits for nothing")
    made: Function = found
    return made


def _takes_origin(function: Function) -> bool:
    """Whether it takes a second argument."""
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def _copy(record: Record) -> DetailedRecord:
    if not isinstance(record, DetailedRecord):
        return DetailedRecord(record.message, record.stream, record.time)
    fields = record.fields
    return DetailedRecord(
        record.message,
        record.stream,
        record.time,
        record.sequence,
        record.level,
        dict(fields) if fields is not None else None,
        record.truncated,
        record.place,
        record.part,
        record.logged,
        record.error,
        record.at_root,
    )


Copies = dict[int, tuple[Record, Record]]
"""What the function was given, by identity, and what each is a copy of."""


def _check(records: Sequence[object], copies: Copies) -> str:
    """What is wrong with what was returned, so that no sink has to find out; empty if nothing.

    Times become what `Record.time` is to be. The stable id stays that of the engine's time.
    """
    fields: list[dict[str, Any]] = []
    for record in records:
        if mistake := _mistake(record):
            return mistake
        assert isinstance(record, Record)
        _, original = copies.get(id(record), (None, None))
        if original is None or record.time != original.time:
            time = _time(record.time)
            if time is None:
                return f"a record whose time is none: {str(record.time)[:40]!r}"
            record.time = time
        if original is not None and isinstance(record, DetailedRecord):
            record.logged = original.logged or ("" if record.time == original.time else original.time)
        if record.fields:
            fields.append(record.fields)
    try:
        _encode(fields)
    except UnicodeEncodeError:
        pass  # halves of surrogate pairs: every sink replaces them
    except RecursionError:
        return "a record whose fields contain themselves, or are nested too deeply"
    except Exception as error:
        return f"a record whose fields cannot be written: {error}"
    return ""


_encode = msgspec.json.Encoder(enc_hook=str).encode


def _time(value: Any) -> str | None:
    time = parse_time(value.isoformat() if isinstance(value, datetime) else value)
    return None if time is None or time.startswith(BEYOND) else time


def _mistake(record: object) -> str:
    """What is wrong about the types of one that was returned; empty if nothing."""
    if not isinstance(record, Record):
        return f"{type(record).__name__}, and not a record"
    if not isinstance(record.message, str):
        return "a record whose message is no text"
    if record.stream not in STREAMS:
        return "a record of a stream that there is not"
    fields: object = record.fields
    if fields is not None and (
        not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields)
    ):
        return "a record whose fields are no dict with texts as names"
    if isinstance(record, DetailedRecord):
        for name, type_ in _TYPES:
            if not isinstance(getattr(record, name), type_):
                return f"a record whose {name} is no {_NAMES[type_]}"
    return ""


_NAMES: dict[Any, str] = {str: "text", str | None: "text", int: "number", bool: "True or False"}
_TYPES = (
    ("level", str | None),
    ("part", str),
    ("place", str | None),
    ("error", str),
    ("sequence", int),
    ("truncated", bool),
    ("at_root", bool),
)


def _tell_apart(records: list[Record], copies: Copies) -> None:
    """Give what would have the id of another one a `part`: a receiver would take it for there already.

    Those that were given keep theirs, because it must not depend on what else is in the batch.
    """
    own = {id(record) for record in records if id(record) in copies}
    if len(own) == len(records):
        return
    taken = {_key(copies[each][0]) for each in own}
    for index, record in enumerate(records):
        if id(record) in own:
            own.discard(id(record))  # it is there again, where it comes again
            continue
        key = _key(record)
        if id(record) in copies or key in taken:
            parts = (f"{record.part}.{number}" for number in count(1))
            part = next(part for part in parts if (*key[:-1], part) not in taken)
            fields = dict(record.fields) if record.fields is not None else None
            record = msgspec.structs.replace(detailed(record), part=part, fields=fields)
            records[index] = record
        taken.add(_key(record))


def _key(record: Record) -> tuple[str, str, int, str | None, str]:
    """What its stable id is made of."""
    return record.stream, record.logged or record.time, record.sequence, record.place, record.part
