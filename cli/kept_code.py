"""What is compiled from text while modules are imported is kept, as the bytecode of the modules is.

Dataclasses, attrs and named tuples write their methods as text, and `typing` reads annotations that are text:
1,400 of them, nearly all of libraries, are compiled whenever the program starts, a fifth of its start, and
most are never used; so are a hundred regular expressions, a twentieth of it. Python keeps the bytecode of a
module in `__pycache__`; what was made of those texts is kept there, too, in one file. A text is known by
itself: what another version of a library writes is compiled, and kept beside it.

Nothing depends on that: where the file cannot be read or written, or is another Python's, all is compiled.
"""

from __future__ import annotations
import __future__

import collections
import dataclasses
import importlib
import marshal
import os
import re
import sys
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import cache_from_source
from types import CodeType
from typing import Any

try:  # they are Python's own
    _sre: Any = importlib.import_module("_sre")
    _compiler: Any = importlib.import_module("re._compiler")
except ImportError:
    _sre = _compiler = None

LIMIT_BYTES = 4 << 20
"""All commands together keep a tenth of it; when other versions of libraries filled it, it begins anew."""

_INHERITED = 0
for _name in __future__.all_feature_names:
    _INHERITED |= getattr(__future__, _name).compiler_flag
# What attrs writes to hash an object begins with a number that tells classes apart, any will do, but that is
# another at each start.
_SALTED = "hash(("
_SALT = re.compile(r"hash\(\(\n *-?[0-9]+,")
# Each release has its own bytecode.
_HEADER = f"{sys.version} {sys.byteorder} {sys.maxsize:x}\n".encode()
_Expression = tuple[int, list[int], int, dict[str, int], tuple[str | None, ...]]
"""What `_sre.compile` takes after the pattern: flags, code, how many groups, and their names."""
_DAMAGED = (EOFError, ValueError, TypeError, RuntimeError)


class KeptCode:
    """Is asked before Python compiles, from `begin` to `end`, by the modules that write such texts.

    These find `compile`, `exec` or `eval` of their own, in front of Python's. What others compile may be what
    a user wrote, and is not kept; so may an expression be that no module compiles while it is imported.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        # Of each text what was made of it: marshalled, until it is asked for.
        self._kept: dict[str, Any] = {}
        self._new: dict[str, CodeType | _Expression] = {}
        self._active = False
        self._asked_by: list[tuple[Any, str, Any]] = []

    def begin(self) -> None:
        if self._active:
            return
        self._active = True
        self._kept = self._read()
        self._stand_in(dataclasses, "exec", self._executed)
        self._stand_in(collections, "eval", self._evaluated)
        self._stand_in(typing, "compile", self._compiled)
        if _compiler is not None:
            self._stand_in(_compiler, "compile", partial(self._expression, _compiler.compile))

    def begin_attrs(self) -> None:
        """Likewise for attrs, which is imported."""
        with suppress(ImportError):
            self._stand_in(importlib.import_module("attr._make"), "compile", self._compiled)

    def _stand_in(self, module: Any, name: str, function: Callable[..., Any]) -> None:
        if self._active:
            self._asked_by.append((module, name, vars(module).get(name)))
            vars(module)[name] = function

    def end(self) -> None:
        """Everything is imported: store what was new, and keep nothing of it in memory."""
        if not self._active:
            return
        self._active = False
        while self._asked_by:
            module, name, before = self._asked_by.pop()
            vars(module)[name] = before
            if before is None:  # it is Python's
                del vars(module)[name]
        new, self._new, self._kept = self._new, {}, {}
        if new and not sys.dont_write_bytecode:
            with suppress(OSError):
                self._write(new)

    def _read(self) -> dict[str, Any]:
        """As it was written, if it was by this Python."""
        with suppress(OSError, *_DAMAGED), open(self._file, "rb") as file:
            if file.read(len(_HEADER)) == _HEADER:
                kept = marshal.loads(file.read())
                if isinstance(kept, dict):
                    return kept
        return {}

    def _write(self, new: dict[str, Any]) -> None:
        os.makedirs(os.path.dirname(self._file), exist_ok=True)
        # Several may begin at once: each renames a file of its own.
        mine = f"{self._file}.{os.getpid()}"
        try:
            with open(mine, "wb") as file:
                kept = self._read()  # another may have written since
                if sum(len(text) + len(made) for text, made in kept.items()) > LIMIT_BYTES:
                    kept.clear()
                for text, made in new.items():
                    with suppress(ValueError):  # what cannot be marshalled
                        kept[text] = marshal.dumps(made)
                file.write(_HEADER + marshal.dumps(kept))
            os.replace(mine, self._file)
        except OSError:
            os.unlink(mine)
            raise

    def _code(self, source: str, filename: str, mode: str, flags: int) -> CodeType:
        text = f"{mode} {flags} {filename}\n{_SALT.sub(_SALTED, source) if _SALTED in source else source}"
        kept: Any = self._kept.get(text)
        if isinstance(kept, bytes):
            with suppress(*_DAMAGED):
                kept = self._kept[text] = marshal.loads(kept)
        if isinstance(kept, CodeType):
            return kept
        code: CodeType = compile(source, filename, mode, flags, True)
        self._new[text] = self._kept[text] = code
        return code

    def _expression(self, compiled: Callable[[Any, int], Any], pattern: Any, flags: int = 0) -> Any:
        """As `re._compiler.compile`, of which only the last step is done for a pattern that is kept."""
        caller = sys._getframe(3)  # of `re.compile`, which calls `re._compile`, which calls this
        if caller.f_locals is not caller.f_globals:
            return compiled(pattern, flags)
        text = f"re {flags} {pattern!r}"
        kept: Any = self._kept.get(text)
        with suppress(*_DAMAGED):
            if isinstance(kept, bytes):
                return _sre.compile(pattern, *marshal.loads(kept))
        coded, codes = _compiler._code, []

        def listening(*parsed: Any) -> Any:
            codes.append(coded(*parsed))
            return codes[-1]

        _compiler._code = listening
        try:
            made = compiled(pattern, flags)
        finally:
            _compiler._code = coded
        if codes and not made.flags & (re.LOCALE | re.DEBUG):
            names = dict(made.groupindex)
            of_numbers: list[str | None] = [None] * (made.groups + 1)
            for name, number in names.items():
                of_numbers[number] = name
            self._new[text] = (
                made.flags,
                [int(code) for code in codes[-1]],
                made.groups,
                names,
                tuple(of_numbers),
            )
        return made

    # What these stand in for looks at who calls it: at its namespaces, and at what it has from `__future__`.

    def _compiled(self, source: Any, filename: Any, mode: str, *more: Any, **named: Any) -> Any:
        flags = sys._getframe(1).f_code.co_flags & _INHERITED
        if type(source) is str and type(filename) is str and not (more or named):
            return self._code(source, filename, mode, flags)
        if len(more) < 2 and not named.get("dont_inherit"):
            more = ((more[0] if more else named.pop("flags", 0)) | flags, True)
            named.pop("dont_inherit", None)
        return compile(source, filename, mode, *more, **named)

    def _executed(self, source: Any, *spaces: Any, **named: Any) -> None:
        caller = sys._getframe(1)
        if type(source) is str:
            source = self._code(source, "<string>", "exec", caller.f_code.co_flags & _INHERITED)
        if not spaces and "globals" not in named:
            spaces = (caller.f_globals, caller.f_locals)
        exec(source, *spaces, **named)

    def _evaluated(self, source: Any, *spaces: Any, **named: Any) -> Any:
        caller = sys._getframe(1)
        if type(source) is str:
            source = self._code(source.lstrip(" \t"), "<string>", "eval", caller.f_code.co_flags & _INHERITED)
        if not spaces and "globals" not in named:
            spaces = (caller.f_globals, caller.f_locals)
        return eval(source, *spaces, **named)


def beside(module_file: str) -> KeptCode:
    """What is kept where the bytecode of this module is."""
    try:
        return KeptCode(cache_from_source(os.path.join(os.path.dirname(module_file), "kept_texts.py")))
    except NotImplementedError:  # this Python keeps no bytecode
        return KeptCode("")
