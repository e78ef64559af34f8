"""Redact: what nobody may read is masked, hashed or taken out, in messages, fields, and errors about these.

Hyperscan tells, for a whole batch and all patterns at once, in which texts there may be something at all;
only these are looked at by RE2, and what has a check digit is checked. Both take a time that grows with the
text, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import Field, field_validator, model_validator

from logroute.config.components import PROCESSORS
from logroute.config.types import Secret
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._sensitive import Sensitive, sensitive
from logroute.router.digest import blake2b
from logroute.router.record import Batch, DetailedRecord, Record, detailed
from logroute.router.regex import RegexError, RegexSet

HASH_BYTES = 8
DEEPEST = 64
"""What is deeper in fields is looked at as one text: Python's stack ends somewhere."""
SHORTEST_KEY = 16
"""A shorter one could be found by trying."""
GAVE_UP = "redact: a pattern finds much here and looks far for more each time, so the rest is redacted"
"""The mark of a record of which a part was not looked at."""

Kind = Literal["card", "iban", "email", "ip", "bearer", "aws", "jwt"]


class RedactOptions(ProcessorOptions):
    """Make unreadable what nobody may read, in messages, errors, and the values of fields, however deep."""

    type: Literal["redact"] = "redact"
    kinds: list[Kind] = Field(default=[], examples=[["card", "email", "ip", "bearer"]])
    """What is looked for: numbers of cards (Luhn's check digit is right) and of accounts (`iban`: ISO 7064's
    is), e-mail addresses, IPv4 and IPv6 addresses, bearer tokens, keys of AWS, JSON web tokens."""
    patterns: list[str] = Field(default=[], examples=[["(?i)password=(\\S+)"]])
    """Regular expressions of your own. Where one has groups, only what these take is redacted."""
    with_: Literal["mask", "hash", "remove"] = Field(default="mask", alias="with")
    """What stands there then: `[email]`, of patterns `[redacted]`; with `hash` `[email:9f86d081884c7d65]`,
    the same for the same value, so that one can still count; or nothing."""
    key: Annotated[str | None, Secret()] = Field(default=None, repr=False)
    """What hashes are made with: nobody who lacks it can tell a value by trying. Keep it in a file:
    `${file:/run/secrets/redact}`."""

    @field_validator("patterns")
    @classmethod
    def _patterns_are_some(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                Sensitive.own(pattern)
            except RegexError as error:
                raise ValueError(str(error)) from error
        return patterns

    @model_validator(mode="after")
    def _something_is_looked_for(self) -> RedactOptions:
        if not self.kinds and not self.patterns:
            raise ValueError("nothing is looked for: give `kinds`, `patterns` or both")
        if self.with_ == "hash" and len(self.key or "") < SHORTEST_KEY:
            raise ValueError(f"`with: hash` needs a `key` of at least {SHORTEST_KEY} characters")
        if self.with_ != "hash" and self.key is not None:
            raise ValueError("only `with: hash` takes a `key`")
        return self


@PROCESSORS.register(RedactOptions)
class RedactProcessor(Processor[RedactOptions]):
    """Puts records of its own in the places of those that say something, and leaves the others alone."""

    changes: ClassVar[bool] = False
    quick: ClassVar[bool] = True
    guards: ClassVar[bool] = True

    def __init__(self, options: RedactOptions) -> None:
        super().__init__(options)
        kinds = dict.fromkeys(options.kinds)
        self._sensitive = [each for kind in kinds for each in sensitive(kind)]
        self._sensitive += [Sensitive.own(pattern) for pattern in dict.fromkeys(options.patterns)]
        self._regexes = RegexSet(each.where for each in self._sensitive)
        self._key = (options.key or "").encode()
        self._gave_up = False

    def apply(self, batch: Batch) -> Batch:
        self._gave_up = False  # where the last batch has failed it may still be set
        lines, newlines = batch.lines, batch.newlines
        found = self._found([record.message for record in lines], newlines=newlines)
        made: list[Record] | None = None
        given_up: set[int] = set()
        for index in compress(range(len(lines)), found.in_any()):
            record = lines[index]
            text = record.message[:-1] if newlines else record.message
            redacted = self._redacted(text, found.at(index))
            if redacted != text:
                made = list(lines) if made is None else made
                made[index] = msgspec.structs.replace(
                    record, message=f"{redacted}\n" if newlines else redacted
                )
                self._note(index, given_up)
        for index, fields, error in self._details(lines):
            made = list(lines) if made is None else made
            record = made[index]
            if record is lines[index]:
                record = msgspec.structs.replace(record)
            assert isinstance(record, DetailedRecord)  # no others have fields
            record.fields, record.error = fields, error
            made[index] = record
            self._note(index, given_up)
        if made is None:
            return batch
        for index in given_up:
            made[index] = record = detailed(made[index])
            record.error = GAVE_UP
        self.books.failed += len(given_up)
        return batch.with_lines(made)

    def _note(self, index: int, given_up: set[int]) -> None:
        if self._gave_up:
            self._gave_up = False
            given_up.add(index)

    def _details(self, records: list[Record]) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
        """Of records whose fields or error say something, their places, other fields and another error.

        What could not be made of a record may quote it.
        """
        if list(map(type, records)).count(Record) == len(records):
            return
        texts: list[str] = []
        owners: list[int] = []
        for index, record in enumerate(records):
            if record.fields:
                texts += texts_in(record.fields)
            if record.error:
                texts.append(record.error)
            if len(texts) > len(owners):
                owners += [index] * (len(texts) - len(owners))
        if not texts:
            return
        for index in dict.fromkeys(compress(owners, self._found(texts).in_any())):
            fields, error = records[index].fields, records[index].error
            other_fields, other_error = self._value(fields), self._redacted(error, self._sensitive)
            if other_fields is not fields or other_error != error:
                yield index, other_fields, other_error

    def _value(self, value: Any, depth: int = 0) -> Any:
        """Another value, or this one where it says nothing. What is below it is never changed itself."""
        if depth == DEEPEST and isinstance(value, dict | list | tuple):
            text = _as_text(value)
            changed = self._redacted(text, self._sensitive)
            return value if changed == text else changed
        if isinstance(value, str):
            changed = self._redacted(value, self._sensitive)
            return value if changed == value else changed
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = str(value)
            changed = self._redacted(text, self._sensitive)
            return value if changed == text else changed
        if isinstance(value, dict):
            below = {key: self._value(each, depth + 1) for key, each in value.items()}
            return below if any(below[key] is not value[key] for key in below) else value
        if isinstance(value, list | tuple):
            items = [self._value(each, depth + 1) for each in value]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        if value is None or isinstance(value, bool):
            return value
        plain = _plain(value)
        changed = self._value(plain, depth)
        return value if changed is plain else changed

    def _found(self, texts: list[str], *, newlines: bool = False) -> _Found:
        masks = self._regexes.masks(texts, newlines=newlines)
        return _Found([(each, masks[each.where]) for each in self._sensitive], len(texts))

    def _redacted(self, text: str, looked_for: list[Sensitive]) -> str:
        """The text without what these find; itself where they find nothing."""
        # RE2 wants UTF-8. What that cannot express no sink could write.
        data = text.encode("utf-8", "replace")
        spans = sorted(
            (
                (start, -end, each.name, value)
                for each in looked_for
                for start, end, value in each.spans(data)
            ),
            key=itemgetter(0, 1, 2),
        )
        if not spans:
            return text
        self._gave_up = self._gave_up or any(value is None for *_, value in spans)
        pieces: list[bytes] = []
        at = until = 0
        for start, minus_end, name, value in spans:
            if start >= until:  # else it begins inside of what is gone already, and the rest of it goes too
                pieces += (data[at:start], self._instead(name, value))
            at = until = max(until, -minus_end)
        pieces.append(data[at:])
        return b"".join(pieces).decode("utf-8", "replace")

    def _instead(self, name: str, value: bytes | None) -> bytes:
        if value is None:
            return f"[{name}]".encode()
        match self.options.with_:
            case "remove":
                return b""
            case "hash":
                digest = blake2b(value, digest_size=HASH_BYTES, key=blake2b(self._key).digest())
                return f"[{name}:{digest.hexdigest()}]".encode()
            case _:
                return f"[{name}]".encode()


class _Found:
    """Which of many texts may say something, and what."""

    def __init__(self, masks: list[tuple[Sensitive, bytearray]], count: int) -> None:
        self._masks = masks
        self._count = count

    def in_any(self) -> bytes:
        """A byte for each text."""
        mask = 0
        for _, each in self._masks:
            mask |= int.from_bytes(each, "little")
        return mask.to_bytes(self._count, "little")

    def at(self, index: int) -> list[Sensitive]:
        return [each for each, mask in self._masks if mask[index]]


def texts_in(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in a value, and its numbers: that of a card may well be one, or one with `.0` behind."""
    if depth == DEEPEST and isinstance(value, dict | list | tuple):
        yield _as_text(value)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield str(value)
    elif isinstance(value, dict):
        for below in value.values():
            yield from texts_in(below, depth + 1)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from texts_in(below, depth + 1)
    elif value is not None:
        yield from texts_in(_plain(value), depth)


def _plain(value: Any) -> Any:
    """What sinks write of a value that some function has put there: a set, a dataclass, a Decimal."""
    return msgspec.to_builtins(value, enc_hook=str)


def _as_text(value: Any) -> str:
    """What is in it, one behind the other: if that says something, the value becomes this text."""
    words: list[str] = []
    waiting = [value]
    while waiting:  # it is deeper than calls may be
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += reversed(each.values())
        elif isinstance(each, list | tuple):
            waiting += reversed(each)
        else:
            words.append(str(each))
    return " ".join(words)
