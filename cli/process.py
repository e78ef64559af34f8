"""What the process that runs the daemon asks of Python and of the C library."""

from __future__ import annotations

import ctypes
import gc
import importlib
import linecache
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from logroute.cli import kept_code

MIB = 1 << 20
# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_PTHREADS = "libpthread.so.0"
"""glibc's. Where it has another name, trio's threads have none."""

SWITCH_S = 0.0005
GC_THRESHOLD = 20000

_KEPT = kept_code.beside(__file__)


def begin(*, logs: bool) -> None:
    """Before a command is imported that imports what `logs`, or that does not.

    What imports make lives on, to look for garbage in it is in vain.
    """
    gc.disable()
    _KEPT.begin()
    # Looking for pydantic's plugins reads the metadata of everything that is installed.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    # structlog imports it wherever it is there, for tracebacks that nobody here wants: it is ten megabytes.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    # httpx has a command of its own, which imports what colours code: 7 ms.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    if logs:
        # Its loggers for asyncio would ask that when they are called: 20 ms, 3 MB.
        _import("structlog", later=("asyncio",))
        # OpenSSL is for who speaks TLS: 11 ms, 2 MB.
        _KEPT.begin_attrs()
        # It would ask another process where pthreads are: 8 ms.
        _import("trio", later=("ssl", "hmac"), without="ctypes.util", find_library=lambda _: _PTHREADS)
        # It would look for plugins there, of which it shall have none: 6 ms.
        _import("pydantic.plugin._loader", without="importlib.metadata", entry_points=None)
        # For how secrets compare, of which there are none in the models: OpenSSL again.
        _import("pydantic.types", later=("secrets",))


class _Later(ModuleType):
    """Stands in for a module until something of it is asked for, which is then imported."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _import(name: str, *, later: Sequence[str] = (), without: str = "", **contents: object) -> None:
    """Import this module, but what it uses only `later` when it does; and `without` another that it would
    import, and use only where it is asked for what nobody here asks."""
    stand_ins: dict[str, ModuleType] = {name: _Later(name) for name in later if name not in sys.modules}
    if without and without not in sys.modules:
        stand_ins[without] = ModuleType(without)
        vars(stand_ins[without]).update(contents)
    packages = {}
    for module, stand_in in stand_ins.items():
        sys.modules[module] = stand_in
        within, _, called = module.rpartition(".")
        if within:
            packages[module] = vars(importlib.import_module(within))
            packages[module][called] = stand_in
    try:
        importlib.import_module(name)
    finally:
        for module, stand_in in stand_ins.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]
                if module in packages:
                    del packages[module][module.rpartition(".")[2]]


def drawing() -> None:
    """Before what draws a screen is imported."""
    if sys.modules.get("rich", sys) is None:
        del sys.modules["rich"]


def tune(*, ends_soon: bool = False) -> None:
    """Before the daemon runs; or what ends once it is done with what it was started for, or seen."""
    # The thread that opens what rotation makes must get the interpreter at once; five milliseconds, Python's
    # own choice, for each of its calls to the system are more than a fast writer leaves it.
    sys.setswitchinterval(SWITCH_S)
    _KEPT.end()
    # Buffers of a megabyte come and go with every batch. Given back to the kernel each time, their pages
    # would be cleared and mapped anew, which costs as much as encoding what goes into them.
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)  # glibc's
    if mallopt is not None:
        # One heap for all threads, which anyway take turns: others would each keep their own largest buffers.
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 8 * MIB)
        # A body of 4 MiB, what it is made of and what goes into the next one are there at once.
        mallopt(_M_TRIM_THRESHOLD, 16 * MIB)
    # What imports and the configuration left behind goes, over a megabyte; the rest stays. Records are not
    # tracked: there is little to look at, rarely.
    if not ends_soon:  # to find it takes 25 ms, which who looks at a screen does not wait for
        linecache.clearcache()
        gc.collect()
    if mallopt is not None:
        libc.malloc_trim(0)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    gc.enable()


def end(status: str | int | None) -> NoReturn:
    """End the process, as `sys.exit` would, but at once: to take it to pieces takes 40 ms and frees nothing.

    To be called when everything has been closed.
    """
    _KEPT.end()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # which it is where the shell has closed it
                stream.flush()
    except (OSError, ValueError):  # which Python has its own words for
        sys.exit(status)
    if status is None or isinstance(status, int):
        os._exit((status or 0) & 0xFF)
    sys.exit(status)
