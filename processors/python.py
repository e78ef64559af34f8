"""Python: a function of the user's is given a batch's records and returns them, as it likes."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.router.record import STREAMS, Batch, DetailedRecord, Record

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
        made = self._function(given, batch.origin) if self._with_origin else self._function(given)
        if made is None:
            raise TypeError(f"{self.options.function} has returned nothing: it must return the records")
        records = list(made)
        for record in records:
            if mistake := _mistake(record):
                raise TypeError(f"{self.options.function} has returned {mistake}")
        self.books.added += max(0, len(records) - len(given))
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


def _mistake(record: object) -> str:
    """What is wrong about something that was returned, so that no sink has to find out; empty if nothing."""
    if not isinstance(record, Record):
        return f"{type(record).__name__}, and not a record"
    if not isinstance(record.message, str) or not isinstance(record.time, str):
        return "a record whose message or time is no text"
    if record.stream not in STREAMS:
        return "a record of a stream that there is not"
    if record.level is not None and not isinstance(record.level, str):
        return "a record whose level is no text"
    fields: object = record.fields
    if fields is not None and (
        not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields)
    ):
        return "a record whose fields are no dict with texts as names"
    return ""
