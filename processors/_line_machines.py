"""Which lines belong together: for each kind of trace a small machine over classes of lines.

A machine is in the state that the line before has left it in. A line is of the classes whose patterns are
found in it; the first rule of the state that names one of them says what the line means: the state behind it,
or that a record begins with it. Patterns are searched for in whole batches (`router.regex`); a machine only
sees what was found, and nothing but the lines from where a record begins.

What traces look like is written down where their languages are: the Java Language API's
`Throwable.printStackTrace`, Python's `traceback`, Go's `runtime` (`GOTRACEBACK`), Ruby's
`Exception#full_message`, V8's stack trace API, .NET's `Exception.ToString`, PHP's `Throwable::__toString`.
What libraries add is in their own: pydantic's `ValidationError`, Reactor's `FluxOnAssembly`, Npgsql's
`PostgresException.ToString`, `SqlException.ToString`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from logroute.router.regex import Regex

ANY = ""
"""The class of every line."""

Rules = tuple[tuple[str, str | None], ...]
"""(class, state behind the line); None: a record begins with it."""

Preset = Literal["java", "python", "go", "ruby", "node", "dotnet", "php"]


class LineMachine(msgspec.Struct, frozen=True):
    """How lines join."""

    classes: Mapping[str, Regex]
    states: Mapping[str, Rules]
    """In a state without a rule for it, a line begins a record. Where a state is named with a `?` behind,
    the line that leads to it is in doubt: it belongs to the record only if one follows that leads to a state
    without."""
    begin: Rules
    """The state behind the first line of a record; there is always one."""
    plain: str = ""
    """The class of most lines, which begin a record in every state; empty: those of no class do, but in
    states with a rule for `ANY`."""
    logged: Regex | None = None
    """What a line begins with that no doubt takes: a logger wrote it. Only looked for where there is one."""

    def begins(self, classes: frozenset[str]) -> str:
        """The state behind a first line of these classes."""
        for name, state in self.begin:
            if (name == ANY or name in classes) and state is not None:
                return state
        raise AssertionError("every line may be a first one")

    def follows(self, state: str, classes: frozenset[str]) -> str | None:
        """The state behind a further line; None: it begins a record."""
        for name, after in self.states.get(state, ()):
            if name == ANY or name in classes:
                return after
        return None

    def takes_plain(self, state: str) -> bool:
        """Whether a line of which there is nothing to say may belong to what is in that state."""
        plain = frozenset((self.plain,)) if self.plain else frozenset[str]()
        return self.follows(state, plain) is not None


def own_machine(start: str | None, continues: str | None) -> LineMachine:
    """The machine of a user's patterns. Raises RegexError."""
    if start is None:
        assert continues is not None
        return LineMachine({"more": Regex(continues)}, {"in": (("more", "in"),)}, ((ANY, "in"),))
    if continues is None:
        return LineMachine(
            {"start": Regex(start)},
            {"in": (("start", None), (ANY, "in"))},
            ((ANY, "in"),),
            plain="start",
        )
    return LineMachine(
        {"start": Regex(start), "more": Regex(continues)},
        {"in": (("start", None), ("more", "in"))},
        (("start", "in"), (ANY, "alone")),
    )


def _machine(classes: Mapping[str, str], states: Mapping[str, Rules], begin: Rules) -> LineMachine:
    compiled = {name: Regex(pattern) for name, pattern in classes.items()}
    return LineMachine(compiled, states, begin, logged=Regex(_LOGGED))


_LOGGED = (
    r"^(?:\x1b\[[\d;]*m)*[\[(<|]?(?:"
    r"\d{4}[-/.]\d\d[-/.]\d\d|\d\d?[-/.](?:\d\d|[A-Z][a-z]{2})[-/.]\d{4}|\d\d:\d\d:\d\d|\d{10,13}\b"
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:|[A-Z][a-z]{2}, \d\d? |[IWEF]\d{4} \d\d:|\d+\.\d+\.\d+\.\d+ "
    r"|(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|SEVERE|FATAL|CRITICAL)\b"
    r"|(?:trace|debug|info|notice|warn|warning|error|fatal|critical)[\]:|]"
    r'|(?:time|ts|level)=|\{"|[\w.-]+\] )'
)
"""A time, an address (access logs), a level, JSON, logfmt, a name in brackets."""

# In all of them `plain` is the state behind one line that says nothing of a trace: the message that it was
# logged with, which it belongs to. `message?` is that within the message of an exception, which may have
# several lines: where none of a trace follows, they were something else.


def _java() -> LineMachine:
    trace: Rules = (("frame", "trace"), ("more", "trace"), ("cause", "cause"))
    message: Rules = (("thread", None), ("head", None), (ANY, "message?"))
    return _machine(
        {
            "thread": r'^Exception in thread "',
            "head": r"^(?:[A-Za-z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable|Failure)\w*(?::|$)",
            "frame": r"^[\t ]+at \S",
            "more": r"^[\t ]+\.\.\. \d+ ",
            "cause": r"^[\t ]*(?:Caused by: |Suppressed: |Wrapped by: |\[CIRCULAR REFERENCE: )",
            "deep": r"^[\t ]+\S",
            "blank": r"^$",
            # Where an operator was assembled: the message of what Reactor's `FluxOnAssembly` suppresses.
            "reactor": r"^(?:Error has been observed (?:at|by) the following |(?:Original )?Stack [Tt]race:$"
            r"|Assembly trace from producer \[)",
        },
        {
            # Spring Boot has an empty line before the trace, and one behind it.
            "plain": (("head", "head"), *trace, ("blank", "blank?")),
            "blank?": (("head", "head"),),
            "head": (*trace, ("deep", "head"), *message),
            "cause": (*trace, ("deep", "cause"), ("reactor", "cause"), *message),
            "message?": (*trace, *message),
            "trace": (*trace, ("blank", "behind")),
        },
        (("thread", "head"), ("head", "head"), ("blank", "alone"), (ANY, "plain")),
    )


def _python() -> LineMachine:
    return _machine(
        {
            "group": r"^[\t |+]*Exception Group Traceback \(most recent call last\):",
            "traceback": r"^[\t |+]*Traceback \(most recent call last\):",
            "file": r'^[\t ]+File "',
            "indented": r"^[\t ]+\S",
            "blank": r"^[\t ]*$",
            "bridge": r"^(?:During handling of the above exception, another exception occurred:"
            r"|The above exception was the direct cause of the following exception:)",
            # What psycopg, SQLAlchemy and pydantic (what is wrong with a field) say further.
            "detail": r"^(?:DETAIL: |HINT: |LINE \d+: |\[SQL: |\[parameters: |\(Background on this error "
            r"|  \S.*[\[(]type=[\w.]+)",
            # `logging` with `stack_info`, and `faulthandler`: nothing but indented lines behind it.
            "stack": r"^(?:Stack \(most recent call last\):"
            r"|(?:Current t|T)hread 0x[\da-f]+ .*\(most recent call first\):"
            r"|Current thread's C stack trace |Python runtime state: |Extension modules: )",
        },
        {
            # The interpreter has an empty line behind why it ends.
            "plain": (("group", "group"), ("traceback", "head"), ("stack", "stack"), ("blank", "blank?")),
            "blank?": (("stack", "stack"),),
            "stack": (("stack", "stack"), ("indented", "stack"), ("traceback", "head"), ("blank", "blank?")),
            "group": (("indented", "group"), ("blank", "behind")),
            "head": (("indented", "body"),),
            # What is not indented is the exception itself.
            "body": (("indented", "body"), ("traceback", "head"), ("blank", None), (ANY, "end")),
            "end": (
                ("traceback", None),
                ("stack", "stack"),
                ("indented", "end"),
                ("detail", "end"),
                ("blank", "behind"),
                # pydantic has a field's name before what is wrong with it.
                (ANY, "field?"),
            ),
            "field?": (("detail", "end"),),
            "behind": (("bridge", "bridge"), ("detail", "end")),
            "bridge": (("blank", "bridge"), ("group", "group"), ("traceback", "head")),
        },
        (("group", "group"), ("traceback", "head"), ("stack", "stack"), ("file", "body"), (ANY, "plain")),
    )


def _go() -> LineMachine:
    addresses = r"(?: (?:fp|sp|pc)=0x[0-9a-f]+)*"
    return _machine(
        {
            "panic": r"^[\t ]*(?:panic: |fatal error: |runtime: |SIG[A-Z]+: |PC=0x)",
            "signal": r"^\[signal ",
            "goroutine": r"^(?:goroutine \d+ .*\[.*\].*|runtime stack):$",
            # Calls and where they are (with addresses, where the runtime itself gave up), who began the
            # goroutine, and registers.
            "frame": rf"^\S+\(.*\){addresses}$|^\.\.\.(?:additional|\d+) |^created by "
            rf"|^[\t ]+\S.*:\d+(?: \+0x[0-9a-f]+)?{addresses}$|^\tgoroutine running on other thread"
            r"|^(?:[er]?[a-z][a-z]|r\d+|[er]flags|fault) +0x[0-9a-f]+$",
            "blank": r"^$",
            "deep": r"^[\t ]+\S",
            "exit": r"^exit status \d+$",
        },
        {
            "plain": (("goroutine", "frames"),),
            # Since 1.23 a message's further lines are indented.
            "panic": (
                ("panic", "panic"),
                ("signal", "panic"),
                ("blank", "panic"),
                ("deep", "panic"),
                ("goroutine", "frames"),
                (ANY, "message?"),
            ),
            "message?": (
                ("deep", "message?"),
                ("panic", None),
                ("signal", "panic"),
                ("goroutine", "frames"),
                (ANY, "message?"),
            ),
            "frames": (("goroutine", "frames"), ("frame", "frames"), ("blank", "frames"), ("exit", "done")),
        },
        (("panic", "panic"), ("goroutine", "frames"), (ANY, "plain")),
    )


def _ruby() -> LineMachine:
    return _machine(
        {
            "head": r"^(?:[A-Z]\w*(?:::[A-Z]\w*)*(?:Error|Exception)\b(?::| \()"
            r"|\S+:\d+:in [`'].*\([A-Z][\w:]*\)$)",
            "frame": r"^[\t ]*(?:\d+: )?(?:from )?(?:[\w-]+ \([\w.]+\) )?\S+:\d+:in [`']",
            "deep": r"^[\t ]+\S",
            "blank": r"^[\t ]*$",
            "cause": r"^(?:Caused by|Causes):?",
        },
        {
            "plain": (("head", "head"), ("frame", "trace")),
            "head": (("frame", "trace"), ("blank", "gap")),
            # Since 3.1 the line of code, and what of it was meant.
            "gap": (("frame", "trace"), ("deep", "gap")),
            "trace": (("frame", "trace"), ("cause", "trace")),
        },
        (("head", "head"), (ANY, "plain")),
    )


def _node() -> LineMachine:
    behind: Rules = (("frame", "trace"), ("cause", "trace"), ("detail", "trace"))
    message: Rules = (("where", None), ("head", None), (ANY, "message?"))
    return _machine(
        {
            "where": r"^(?:file:///|/|[A-Za-z]:\\).*\.[cm]?[jt]sx?:\d+$|^node:\S+:\d+$",
            "caret": r"^[\t ]*\^+[\t ]*$",
            "head": r"^(?:Uncaught )?[\w.]*(?:Error|Exception)(?: \[[\w ]*\])?(?::|$| \{$)",
            "frame": r"^[\t ]+at \S",
            "cause": r"^[\t ]*(?:\[cause\]: |\[errors\]: |Caused by: )",
            "detail": r"^[\t ]+\S|^[\t ]*[\]}]+,?$",
            "blank": r"^(?:Node\.js v\d.*)?$",
            "needs": r"^(?:Require stack:|- .*)$",
        },
        {
            "plain": (("head", "head"), ("frame", "trace")),
            "where": (("blank", None), (ANY, "excerpt")),
            "excerpt": (("caret", "excerpt"), ("blank", "excerpt"), ("head", "head")),
            "head": (("frame", "trace"), ("needs", "head"), *message),
            "message?": (("frame", "trace"), *message),
            "trace": (*behind, ("blank", "gap")),
            "gap": (("blank", "done"),),
        },
        (("where", "where"), ("head", "head"), (ANY, "plain")),
    )


def _dotnet() -> LineMachine:
    trace: Rules = (("frame", "trace"), ("inner", "head"), ("seam", "trace"))
    message: Rules = (("console", None), ("head", None), (ANY, "message?"))
    return _machine(
        {
            "console": r"^(?:trce|dbug|info|warn|fail|crit): ",
            "deep": r"^ {6}",
            "head": r"^(?:Unhandled exception\. )?(?:[A-Za-z_]\w*\.)+\w*Exception\b",
            "frame": r"^[\t ]+at \S",
            "inner": r"^[\t ]*---> ",
            # SqlException says further lines behind its trace.
            "seam": r"^[\t ]*--- End of |^(?:ClientConnectionId(?: before routing)?|Error Number"
            r"|Routing Destination):",
            # What Npgsql's PostgresException has behind its trace; before that its message has an empty line.
            "data": r"^[\t ]+Exception data:$",
            "detail": r"^[\t ]+\S",
        },
        {
            "console": (("deep", "console"),),
            "plain": (("head", "head"), *trace),
            "head": (*trace, ("data", "data"), ("detail", "head"), *message),
            "message?": (*trace, *message),
            "trace": (*trace, ("data", "data")),
            "data": (*trace, ("detail", "data")),
        },
        (("console", "console"), ("head", "head"), (ANY, "plain")),
    )


def _php() -> LineMachine:
    trace: Rules = (
        ("frame", "trace"),
        ("thrown", "trace"),
        ("blank", "gap"),
        ("next", "head"),
        ("end", "done"),
    )
    return _machine(
        {
            "stack": r"^(?:PHP )?Stack trace:$|^\[stacktrace\]$",
            "frame": r"^#\d+ |^PHP +\d+\. ",
            "thrown": r"^[\t ]+thrown in ",
            "next": r"^Next [\w\\]+|^\[previous exception\]",
            "end": r'^"\} ?$',
            "blank": r"^$",
        },
        {
            "plain": (("stack", "trace"), ("frame", "trace")),
            "head": (("stack", "trace"),),
            "trace": trace,
            "gap": (("next", "head"),),
        },
        ((ANY, "plain"),),
    )


MACHINES = {
    "java": _java,
    "python": _python,
    "go": _go,
    "ruby": _ruby,
    "node": _node,
    "dotnet": _dotnet,
    "php": _php,
}
"""How each preset's machine is made; patterns are compiled then."""
