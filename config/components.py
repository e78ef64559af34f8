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
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


class Options(BaseModel):
    """Base of all options: unknown keys are mistakes, values do not change.

    A string below an option is its documentation (`config.documentation`).
    As a default one is made by `model_construct`: it is what its fields' defaults are, and until there is a
    configuration nobody needs what validates it, which takes half a millisecond to build.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, given: Any) -> Any:
        """Pydantic would read `max_open: true` as 1; the text `true` it does not."""
        if not isinstance(given, dict):
            return given
        fields = cls.model_fields
        return {
            name: str(value)
            if isinstance(value, bool) and name in fields and fields[name].annotation in _NUMBERS
            else value
            for name, value in given.items()
        }


_NUMBERS = (int, float, int | None, float | None)


Kind = Literal["source", "processor", "sink"]
ClassT = TypeVar("ClassT", bound=type[Any])


class UnknownComponent(LookupError):
    """No component of that kind has that type."""

    def __init__(self, kind: Kind, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {kind} type {name!r}; there are: {', '.join(known) or 'none'}")
        self.name = name
        self.known = known


class BrokenComponent(Exception):
    """There is a component of that type, but its module cannot be imported."""

    def __init__(self, kind: Kind, name: str, where: str, cause: Exception) -> None:
        super().__init__(
            f'the {kind} type "{name}" cannot be loaded from {where}: {type(cause).__name__}: {cause}'
        )


class Registry:
    """Components of one kind, by type."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
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
        """The options model of a type. Raises UnknownComponent or BrokenComponent."""
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
        """Every type that can be loaded, sorted. Imports every component: for errors, schema and docs."""
        self._load_all()
        return sorted(self._options)

    def schemes(self) -> list[str]:
        """The schemes of every type that can be loaded, sorted."""
        self._load_all()
        return sorted(self._schemes)

    def type_of_scheme(self, scheme: str) -> str:
        """The type that a URI's scheme means.

        Raises UnknownComponent, naming the schemes there are, or BrokenComponent.
        """
        for candidate in (scheme, scheme.partition("+")[0]):
            if candidate not in self._schemes:
                self._load(candidate)
            if candidate in self._schemes:
                return self._schemes[candidate]
        known = self.schemes()
        for candidate in (scheme, scheme.partition("+")[0]):
            if candidate in self._schemes:
                return self._schemes[candidate]
        raise UnknownComponent(self.kind, scheme, known)

    def _load(self, name: str) -> None:
        """Import the module, or the entry point, that registers `name`, if there is one.

        Raises BrokenComponent.
        """
        module = f"{self.group}.{name}"
        own = name.isidentifier() and not name.startswith("_") and importlib.util.find_spec(module)
        if own:
            self._import(name, module, lambda: importlib.import_module(module))
        else:
            for point in self._entry_points().select(name=name):
                self._import(name, _where(point), point.load)

    def _load_all(self) -> None:
        """Import everything; a third party's module that cannot be imported takes nothing else away."""
        package = importlib.import_module(self.group)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith("_"):  # what a component imports for itself once it is used
                continue
            importlib.import_module(f"{self.group}.{module.name}")
        for point in self._entry_points():
            with suppress(BrokenComponent):
                self._import(point.name, _where(point), point.load)

    def _entry_points(self) -> EntryPoints:
        """Those of strangers' components."""
        from importlib.metadata import entry_points  # some milliseconds, which only they shall cost

        return entry_points(group=self.group)

    def _import(self, name: str, where: str, load: Callable[[], object]) -> None:
        try:
            load()
        except Exception as error:  # a stranger's module may do anything
            raise BrokenComponent(self.kind, name, where, error) from error


def _where(point: EntryPoint) -> str:
    return f"{point.value} of {point.dist.name}" if point.dist else point.value


SOURCES = Registry("source")
PROCESSORS = Registry("processor")
SINKS = Registry("sink")
