"""The registry of components: sources, processors and sinks, each found by its `type`.

A component is one module: `sinks/file.py` holds the options model and the class of `type: file`, tied
together by `@SINKS.register(FileOptions)`. Built-in ones are found by their module's name, so adding one
edits no list; others by entry points of the groups `logroute.sources`, `logroute.processors` and
`logroute.sinks` (the entry point names a class that is so registered). A module is imported when its type is
first used, so that a heavy library costs nobody who does not configure it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


class Options(BaseModel):
    """Base of all options: unknown keys are mistakes, values do not change.

    A string below an option is its documentation (`config.documentation`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


Kind = Literal["source", "processor", "sink"]
ClassT = TypeVar("ClassT", bound=type[Any])


class UnknownComponent(LookupError):
    """No component of that kind has that type."""

    def __init__(self, kind: Kind, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {kind} type {name!r}; there are: {', '.join(known) or 'none'}")
        self.name = name
        self.known = known


class Registry:
    """Components of one kind, by type."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.group = f"logroute.{kind}s"
        # Invariant: both hold only what has been imported.
        self._options: dict[str, type[Options]] = {}
        self._classes: dict[type[Options], type[Any]] = {}
        self._schemes: dict[str, str] = {}

    def register(
        self, options: type[Options], *, schemes: tuple[str, ...] = ()
    ) -> Callable[[ClassT], ClassT]:
        """Decorate the class that `options` configure. `schemes` are URI schemes beside the type's own name.

        The scheme of a URI is looked up whole, then up to its `+`: `syslog+tcp` finds `syslog`.
        """
        name = options.model_fields["type"].default

        def decorate(cls: ClassT) -> ClassT:
            self._options[name] = options
            self._classes[options] = cls
            for scheme in (name, *schemes):
                self._schemes[scheme] = name
            return cls

        return decorate

    def options(self, name: str) -> type[Options]:
        """The options model of a type. Raises UnknownComponent."""
        if name not in self._options:
            self._load(name)
        if name not in self._options:
            raise UnknownComponent(self.kind, name, self.types())
        return self._options[name]

    def create(self, options: Options, *args: Any) -> Any:
        """A new component with these options; further arguments go to its class."""
        return self._classes[type(options)](options, *args)

    def class_of(self, name: str) -> type[Any]:
        """The class of a type. Raises UnknownComponent."""
        return self._classes[self.options(name)]

    def types(self) -> list[str]:
        """Every type, sorted. Imports every component: for errors, schema and docs."""
        self._load_all()
        return sorted(self._options)

    def loaded(self) -> list[str]:
        """The types that have been imported so far."""
        return sorted(self._options)

    def type_of_scheme(self, scheme: str) -> str:
        """The type that a URI's scheme means. Raises UnknownComponent, naming the schemes there are."""
        for candidate in (scheme, scheme.partition("+")[0]):
            if candidate not in self._schemes:
                self._load(candidate)
            if candidate in self._schemes:
                return self._schemes[candidate]
        self._load_all()
        for candidate in (scheme, scheme.partition("+")[0]):
            if candidate in self._schemes:
                return self._schemes[candidate]
        raise UnknownComponent(self.kind, scheme, sorted(self._schemes))

    def _entry_points(self) -> EntryPoints:
        from importlib.metadata import entry_points  # costs a start 15 ms, and few need it

        return entry_points(group=self.group)

    def _load(self, name: str) -> None:
        """Import the module, or the entry point, that registers `name`, if there is one."""
        module = f"{self.group}.{name}"
        if name.isidentifier() and importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
        else:
            for point in self._entry_points().select(name=name):
                point.load()

    def _load_all(self) -> None:
        package = importlib.import_module(self.group)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.group}.{module.name}")
        for point in self._entry_points():
            point.load()


SOURCES = Registry("source")
PROCESSORS = Registry("processor")
SINKS = Registry("sink")
