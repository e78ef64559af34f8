"""What is compiled from text at the start is kept: nothing else is, and nothing depends on it."""

import collections
import dataclasses
import importlib
import importlib.util
import marshal
import re
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from logroute.cli import kept_code, process
from logroute.cli.kept_code import KeptCode

MODULE = """
from __future__ import annotations
import collections, dataclasses, re, typing
import attr

@dataclasses.dataclass(frozen=True, order=True)
class Data:
    first: int
    second: str = "two"

@attr.frozen
class Frozen:
    first: int

class Typed(typing.TypedDict):
    some: KeptInATest

Named = collections.namedtuple("Named", "left right")
WORD = re.compile(r"(?x) kept_word \\s (?P<name> [a-z]+ ) | (é+)", re.IGNORECASE)
BYTES = re.compile(rb"kept_bytes (.)")

def look_for(pattern):
    return re.compile(pattern)
GIVEN = compile("def f(x: what_a_user_wrote): pass", "<given>", "exec")
"""


@pytest.fixture(autouse=True)
def _nobody_else_keeps_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    # A test that has begun a command in this process has not ended the process.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    process._KEPT.end()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@contextmanager
def keeping(file: Path) -> Iterator[KeptCode]:
    kept = KeptCode(str(file))
    kept.begin()
    kept.begin_attrs()
    try:
        yield kept
    finally:
        kept.end()


def imported(folder: Path) -> ModuleType:
    path = folder / "some_module.py"
    path.write_text(MODULE)
    re.purge()  # or it would know them
    spec = importlib.util.spec_from_file_location("some_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["some_module"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["some_module"]
    return module


def works(module: ModuleType) -> bool:
    data, frozen = module.Data(1), module.Frozen(7)
    assert data == module.Data(1, "two") < module.Data(2)
    assert repr(data) == "Data(first=1, second='two')"
    assert module.Data.__init__.__annotations__ == {"first": "int", "second": "str", "return": None}
    assert frozen == module.Frozen(7)
    assert hash(frozen) == hash(module.Frozen(7))
    assert module.Named(1, right=2).right == 2
    found = module.WORD.fullmatch("KEPT_WORD abc")
    assert found.group("name", 2) == ("abc", None)
    assert module.WORD.fullmatch("ÉÉ").lastindex == 2
    assert re.compile(module.WORD.pattern, re.IGNORECASE) == module.WORD
    assert module.BYTES.match(b"kept_bytes \xff").groups() == (b"\xff",)
    assert module.look_for("what_a_user_wrote [0-9]").match("what_a_user_wrote 1")
    assert module.Typed.__annotations__["some"].__forward_arg__ == "KeptInATest"
    space: dict[str, object] = {}
    exec(module.GIVEN, space)
    assert space["f"].__annotations__ == {"x": "what_a_user_wrote"}
    return True


def test_what_was_compiled_at_one_start_is_not_at_the_next(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "kept"
    with keeping(file) as kept:
        assert works(imported(tmp_path))
        assert len(kept._new) > 6  # a class has one text, or as many as methods
        assert len([text for text in kept._new if text.startswith("re ")]) == 2
    before = file.stat()
    with keeping(file) as kept:
        assert works(imported(tmp_path))
        assert kept._new == {}
    assert file.stat() == before, "nothing new: not written"
    assert list(file.parent.iterdir()) == [file]


def test_what_a_user_wrote_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    with keeping(file):
        imported(tmp_path)
        assert eval("secret_sum", {"secret_sum": 2}) == 2
    written = file.read_bytes()
    assert b"KeptInATest" in written
    assert b"kept_word" in written
    assert b"secr" not in written
    assert b"what_a_user_wrote" not in written


@pytest.mark.parametrize("damage", ["cut", "another Python's", "other things", "nothing"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "kept"
    with keeping(file):
        imported(tmp_path)
    whole = file.read_bytes()
    head = len(kept_code._HEADER)
    file.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "another Python's": b"2" + whole[1:],
            "other things": whole[:head] + marshal.dumps(dict.fromkeys(marshal.loads(whole[head:]), b"N")),
            "nothing": b"",
        }[damage]
    )
    with keeping(file) as kept:
        assert works(imported(tmp_path))
        assert kept._new
    with keeping(file) as kept:
        assert works(imported(tmp_path))
        assert kept._new == {}


def test_where_nothing_can_be_written_all_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (tmp_path / "some_module.py" / "kept", Path("")):
        with keeping(file):
            assert works(imported(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with keeping(tmp_path / "kept"):
        assert works(imported(tmp_path))
    assert not (tmp_path / "kept").exists()


def test_a_file_full_of_what_nobody_uses_any_more_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept"
    with keeping(file):
        imported(tmp_path)
    monkeypatch.setattr(kept_code, "LIMIT_BYTES", 100)
    with keeping(file):
        dataclasses.make_dataclass("Other", ["other"])
    assert b"KeptInATest" not in file.read_bytes()
    assert b"other" in file.read_bytes()


def test_afterwards_everything_is_as_before(tmp_path: Path) -> None:
    asked_by: list[ModuleType] = [dataclasses, collections, typing, importlib.import_module("attr._make")]
    before = [dict(vars(module)) for module in asked_by]
    with keeping(tmp_path / "kept") as kept:
        kept.begin()  # a second time changes nothing
        kept.begin_attrs()
        assert [dict(vars(module)) for module in asked_by] != before
        with pytest.raises(SyntaxError):
            typing.ForwardRef("1 +")
    assert [dict(vars(module)) for module in asked_by] == before
    kept.begin_attrs()  # too late
    assert "compile" not in vars(asked_by[-1])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("x: unknown", "<text>", "exec"), {}),
        (("x: unknown", "<text>", "exec", 0), {}),
        ((b"x: unknown", "<text>", "exec"), {"flags": 0}),
        (("x: unknown", "<text>", "exec"), {"flags": 0, "dont_inherit": False, "optimize": 1}),
        (("x = 1", "<text>", "exec", 0, True, 2), {}),
    ],
)
def test_what_else_is_compiled_is_compiled_as_by_python(
    tmp_path: Path, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    kept = KeptCode(str(tmp_path / "kept"))
    assert kept._compiled(*given, **named) == compile(*given, **named)
