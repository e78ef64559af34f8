"""Multiline: what joins, and that the same records come out wherever reading begins again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.processors.multiline import MultilineOptions, MultilineProcessor
from logroute.router.position import BEGINNING, Anchor, Position, StreamPosition
from logroute.router.record import (
    ALL_STREAMS,
    STREAMS,
    Batch,
    DetailedRecord,
    Record,
    Stream,
    message_hash,
    settling,
)
from logroute.router.times import iso_time
from tests.processors.conftest import WEB, made

BEGAN_NS = 1_795_000_000 * 10**9
STEP_NS = 1_000_000


def processor(**options: Any) -> MultilineProcessor:
    return cast(MultilineProcessor, made("multiline", **options))


def said(*lines: str, stream: Stream = "stdout", step_ns: int = STEP_NS) -> list[Record]:
    return [Record(line, stream, iso_time(BEGAN_NS + index * step_ns)) for index, line in enumerate(lines)]


def batch(records: Iterable[Record], **details: Any) -> Batch:
    records = [msgspec.structs.replace(record) for record in records]
    return Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=1000, ready=True, **details)


def joined(joins: MultilineProcessor, records: Iterable[Record]) -> list[str]:
    """All that becomes of these, read at once, and nothing more comes."""
    return [record.message for record in joins.hold(batch(records, settled=ALL_STREAMS), "web").records]


# --- what joins -----------------------------------------------------------------------------------------

TRACES = {
    "java": """
        2026-11-23 20:06:26 INFO started
        2026-11-23 20:06:27 ERROR shop.Orders - cannot pay
        + java.lang.IllegalStateException: no card
        + \tat shop.Orders.pay(Orders.java:17)
        + \tat java.base/java.lang.Thread.run(Thread.java:840)
        + Caused by: java.io.IOException: broken pipe
        + \tat shop.Bank.ask(Bank.java:3)
        + \t... 2 more
        + \tSuppressed: java.lang.Exception: closing
        + \t\tat shop.Bank.close(Bank.java:9)
        2026-11-23 20:06:28 INFO going on
        Exception in thread "main" java.lang.NullPointerException
        + \tat Main.main(Main.java:3)
        2026-11-23 20:06:29 ERROR cannot pay either
        +
        + java.lang.IllegalStateException: no card
        + \tat shop.Orders.pay(Orders.java:17)
        + Caused by: org.postgresql.util.PSQLException: ERROR: duplicate key
        +   Detail: Key (id)=(1) already exists.
        + \tat org.postgresql.Driver.run(Driver.java:1)
        +
        Exception in thread "b" java.lang.Error: x
        java.lang.OutOfMemoryError: Java heap space
        + \tat Main.main(Main.java:4)
        at least this is no frame
        + java.util.concurrent.ExecutionException: java.lang.RuntimeException: no card for
        + customer 17
        +
        + of shop 3
        + \tat shop.Orders.pay(Orders.java:17)
        + Caused by: java.sql.SQLException: ORA-00001: unique constraint (SHOP.ORDERS) violated
        + https://docs.oracle.com/error-help/db/ora-00001/
        + \tat oracle.jdbc.Driver.run(Driver.java:1)
        the shop is asked
        + java.lang.IllegalArgumentException: no card
        + \tat shop.Orders.pay(Orders.java:17)
        + \tSuppressed: reactor.core.publisher.FluxOnAssembly$OnAssemblyException:
        + Error has been observed at the following site(s):
        + \t*__checkpoint ⇢ Handler shop.Orders#pay() [DispatcherHandler]
        + \t*__checkpoint ⇢ HTTP GET "/orders" [ExceptionHandlingWebHandler]
        + Original Stack Trace:
        + \t\tat shop.Orders.pay(Orders.java:17)
        + \t\tat shop.Orders.ask(Orders.java:3)
        the shop is asked without a stack
        + java.lang.IllegalArgumentException: no card
        + \tSuppressed: The stacktrace has been enhanced by Reactor, refer to additional information below:
        + Error has been observed at the following site(s):
        + \t|_ checkpoint ⇢ HTTP GET "/orders" [ExceptionHandlingWebHandler]
        + Original Stack Trace:
        the shop is closed
        + java.lang.IllegalStateException: logged without its trace
        the shop is open
        + java.lang.IllegalStateException: logged without its trace
        2026-11-23 20:06:30 ERROR cannot pay
        + java.lang.IllegalStateException: no card
        + \tat shop.Orders.pay(Orders.java:17)
        nothing more
    """,
    "python": """
        started
        ERROR:shop:cannot pay
        + Traceback (most recent call last):
        +   File "/shop/orders.py", line 17, in pay
        +     bank.ask(card)
        +     ~~~~~~~~^^^^^^
        + OSError: [Errno 32] Broken pipe
        +\x20
        + During handling of the above exception, another exception occurred:
        +\x20
        + Traceback (most recent call last):
        +   File "/shop/main.py", line 3, in <module>
        +     pay()
        + shop.NoCard
        going on
        + Traceback (most recent call last):
        +   File "/shop/main.py", line 3, in <module>
        +     pay()
        + KeyError: 'card'
        Traceback (most recent call last):
        +   File "/shop/main.py", line 3, in <module>
        +     pay()
        + KeyError: 'bank'
        the end
        +   + Exception Group Traceback (most recent call last):
        +   |   File "/shop/main.py", line 3, in <module>
        +   | ExceptionGroup: two (2 sub-exceptions)
        +   +-+---------------- 1 ----------------
        +     | ValueError: one
        +     +------------------------------------
        INFO: the real end
        ERROR in the database
        + Traceback (most recent call last):
        +   File "/shop/main.py", line 3, in <module>
        +     pay()
        + sqlalchemy.exc.IntegrityError: (psycopg2.errors.UniqueViolation) duplicate key
        + DETAIL:  Key (id)=(1) already exists.
        +\x20
        + [SQL: INSERT INTO orders VALUES (1)]
        + (Background on this error at: https://sqlalche.me/e/20/gkpj)
        fine again
        ERROR:root:slow
        + Stack (most recent call last):
        +   File "/shop/main.py", line 16, in <module>
        +     pay()
        +   File "/shop/orders.py", line 4, in pay
        +     logging.error("slow", stack_info=True)
        is fast again
        ERROR:root:failed
        + Traceback (most recent call last):
        +   File "/shop/orders.py", line 5, in pay
        +     1/0
        +     ~^~
        + ZeroDivisionError: division by zero
        + Stack (most recent call last):
        +   File "/shop/orders.py", line 6, in pay
        +     logging.exception("failed", stack_info=True)
        dumping all
        +\x20
        + Thread 0x00007fc0c821ab80 (most recent call first):
        +   File "/usr/lib/python3.11/threading.py", line 320 in wait
        +\x20
        + Current thread 0x00007fc0c8bcab80 (most recent call first):
        +   File "/shop/orders.py", line 7 in pay
        +   File "/shop/main.py", line 16 in <module>
        all dumped

        Stack (most recent call last) is what comes next
        ERROR:root:invalid
        + Traceback (most recent call last):
        +   File "/shop/orders.py", line 13, in pay
        +     Order(count="x")
        + pydantic_core._pydantic_core.ValidationError: 2 validation errors for Order
        + card
        +   Field required [type=missing, input_value={'count': 'x'}, input_type=dict]
        +     For further information visit https://errors.pydantic.dev/2.12/v/missing
        + items.0.count
        +   Input should be a valid integer [type=int_parsing, input_value='x', input_type=str]
        +     For further information visit https://errors.pydantic.dev/2.12/v/int_parsing
        valid again
        Fatal Python error: Segmentation fault
        +\x20
        + Current thread 0x00007fc0c821ab80 (most recent call first):
        +   File "/shop/orders.py", line 15 in pay
        +   File "/shop/main.py", line 16 in <module>
        +\x20
        + Extension modules: numpy._core._multiarray_umath (total: 1)
        starting again
    """,
    "go": """
        2026/11/23 20:06:26 started
        panic: runtime error: invalid memory address or nil pointer dereference
        + [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48f0b5]
        +\x20
        + goroutine 1 [running]:
        + main.(*Shop).Pay(...)
        + \t/shop/orders.go:17
        + main.main()
        + \t/shop/main.go:9 +0x15
        + created by net/http.(*Server).Serve in goroutine 1
        + \t/go/src/net/http/server.go:3086 +0x5cb
        + exit status 2
        2026/11/23 20:06:27 http: panic serving 10.0.0.1:1: no card
        + goroutine 7 [running]:
        + net/http.(*conn).serve.func1()
        + \t/go/src/net/http/server.go:1868 +0xb0
        fatal error: runtime: out of memory
        +\x20
        + runtime stack:
        + runtime.throw({0x1, 0x2})
        + \t/go/src/runtime/panic.go:1047 +0x5d
        2026/11/23 20:06:28 going on
        panic: no card
        + \tfor customer 17
        +\x20
        + goroutine 1 [running]:
        + main.main()
        + \t/shop/main.go:6 +0x225
        2026/11/23 20:06:29 started
        panic: first
        + \tline [recovered]
        + \tpanic: again: first
        + \tline
        +\x20
        + goroutine 1 [running]:
        + main.main.func1()
        + \t/shop/main.go:8 +0x4d
        + panic({0x493f20?, 0x4b5108?})
        + \t/usr/local/go/src/runtime/panic.go:860 +0x13a
        2026/11/23 20:06:30 panic: nothing of that
        panic: no card
        + for customer 17 [recovered]
        + \tpanic: again
        +\x20
        + goroutine 7 gp=0xc000007c00 m=3 mp=0xc000100008 [running, locked to thread]:
        + main.main()
        + \t/shop/main.go:6 +0x225
        started
        panic: of a library that logs so
        +\x20
        the shop is open
        fatal error: concurrent map writes
        +\x20
        + goroutine 18 [running]:
        + runtime.throw(0x4c2b5f, 0x15)
        + \t/usr/local/go/src/runtime/panic.go:774 +0x72 fp=0xc000036f00 sp=0xc000036ed0 pc=0x42c7d2
        + created by main.main
        + \t/shop/main.go:5 +0x1d
        the shop is open again
        SIGQUIT: quit
        + PC=0x40816e m=0 sigcode=0
        +\x20
        + goroutine 19 gp=0xad5d4c083c0 m=0 mp=0x559280 [running]:
        + syscall.Kill(0x27?, 0x0?)
        + \t/usr/local/go/src/syscall/zsyscall.go:611 +0x25 fp=0xad5d4bd6fa0 sp=0xad5d4bd6f70 pc=0x4
        + created by main.main in goroutine 1
        + \t/shop/main.go:10 +0x11f
        +\x20
        + goroutine 2 gp=0xad5d4ba4780 m=nil [force gc (idle)]:
        + runtime.goparkunlock(...)
        + \t/usr/local/go/src/runtime/proc.go:468
        +\x20
        + rax    0x0
        + r8     0x0
        + rip    0x40816e
        + rflags 0x202
        + cs     0x33
        closing at 0x33
    """,
    "ruby": """
        started
        E, [2026-11-23T20:06:26] ERROR -- : cannot pay
        + orders.rb:17:in `pay': no card (RuntimeError)
        + \tfrom main.rb:9:in `block in <main>'
        + \tfrom main.rb:8:in `each'
        going on
        + NoMethodError (undefined method `pay' for nil:NilClass):
        +\x20
        + app/models/order.rb:17:in `pay'
        + app/controllers/orders_controller.rb:9:in `create'
        + actionpack (7.0.4) lib/action_controller/metal.rb:12:in `send_action'
        TimeoutError happened, retrying
        + app.rb:3:in `pay': undefined method `x' for nil (NoMethodError)
        +\x20
        +   nil.x
        +      ^^
        + \tfrom app.rb:5:in `<main>'
        the end
    """,
    "node": """
        started
        cannot pay
        + TypeError: Cannot read properties of undefined (reading 'card')
        +     at pay (/shop/orders.js:17:9)
        +     at process.processTicksAndRejections (node:internal/process/task_queues:95:5) {
        +   code: 'NO_CARD',
        +   [cause]: Error: broken pipe
        +       at ask (/shop/bank.js:3:1)
        + }
        going on
        /shop/main.js:3
        +     throw new Error('boom')
        +     ^
        +\x20
        + Error: boom
        +     at Object.<anonymous> (/shop/main.js:3:11)
        +\x20
        + Node.js v20.11.0
        the end
        + Error: Cannot find module './shop'
        + Require stack:
        + - /shop/main.js
        +     at Module._resolveFilename (node:internal/modules/cjs/loader:1:1)
        Error: nothing is wrong
        PrismaClientKnownRequestError:
        + Invalid `prisma.order.create()` invocation in
        + /shop/orders.js:3:1
        +
        +   1 async function pay() {
        + → 2   await prisma.order.create(
        + Unique constraint failed on the fields: (`id`)
        +     at Vn.handleRequestError (/shop/node_modules/@prisma/client/runtime/library.js:121:7)
        /healthz took:12
        /healthz took:13
    """,
    "dotnet": """
        started
        fail: Shop.Orders[0]
        +       cannot pay
        +       System.InvalidOperationException: no card
        +          at Shop.Orders.Pay() in /shop/Orders.cs:line 17
        info: Shop.Orders[0]
        +       going on
        cannot save
        + Npgsql.PostgresException (0x80004005): 23505: duplicate key
        + DETAIL: Key (id)=(1) already exists.
        +    at Npgsql.Run()
        Unhandled exception. System.Exception: no card
        +  ---> System.IO.IOException: broken pipe
        +    at Shop.Bank.Ask() in /shop/Bank.cs:line 3
        +    --- End of inner exception stack trace ---
        +    at Shop.Program.Main() in /shop/Program.cs:line 9
        the end
        + Npgsql.PostgresException (0x80004005): 23505: duplicate key value violates unique constraint "pk"
        +
        + DETAIL: Key (id)=(1) already exists.
        +    at Npgsql.Internal.NpgsqlConnector.ReadMessageLong(Boolean async)
        +   Exception data:
        +     Severity: ERROR
        +     SqlState: 23505
        +     MessageText: duplicate key value violates unique constraint "pk"
        cannot save
        + Microsoft.EntityFrameworkCore.DbUpdateException: An error occurred while saving.
        +  ---> Npgsql.PostgresException (0x80004005): 23505: duplicate key value violates "pk"
        +
        + DETAIL: Detail redacted as it may contain sensitive data.
        +    at Npgsql.Internal.NpgsqlConnector.ReadMessageLong(Boolean async)
        +   Exception data:
        +     Severity: ERROR
        +    --- End of inner exception stack trace ---
        +    at Shop.Orders.Save() in /shop/Orders.cs:line 17
        saved
        cannot log in
        + Microsoft.Data.SqlClient.SqlException (0x80131904): Login failed for user 'shop'.
        + Cannot open database "shop" requested by the login.
        +    at Microsoft.Data.SqlClient.SqlInternalConnection.OnError(SqlException exception)
        + --- End of stack trace from previous location ---
        +    at Shop.Orders.Save() in /shop/Orders.cs:line 17
        + ClientConnectionId:4c2c9a37-0000-0000-0000-000000000000
        + Error Number:18456,State:1,Class:14
        logged in
        + System.InvalidOperationException: logged without its trace
        the shop is open
    """,
    "php": """
        started
        PHP Fatal error:  Uncaught RuntimeException: no card in /shop/orders.php:17
        + Stack trace:
        + #0 /shop/main.php(9): pay()
        + #1 {main}
        +
        + Next Exception: cannot pay in /shop/main.php:9
        + Stack trace:
        + #0 {main}
        +   thrown in /shop/main.php on line 9
        [2026-11-23] local.ERROR: cannot pay {"exception":"[object] (Exception(code: 0): x at /shop/a.php:1)
        + [stacktrace]
        + #0 {main}
        +
        + [previous exception] [object] (Exception(code: 0): y at /shop/b.php:2)
        + [stacktrace]
        + #0 {main}
        + "}
        going on
    """,
}


def groups_of(text: str) -> list[list[str]]:
    """The lines of each record; those with a `+` belong to the line before."""
    groups: list[list[str]] = []
    for line in text.strip("\n").splitlines()[: None if text.strip("\n").splitlines()[-1].strip() else -1]:
        line = line[8:]
        if line.startswith("+"):
            groups[-1].append(line[2:].rstrip(" ") if line[1:2] == " " else "")
        else:
            groups.append([line])
    return groups


@pytest.mark.parametrize("preset", TRACES)
def test_traces_are_one_record_each(preset: str) -> None:
    groups = groups_of(TRACES[preset])
    lines = [line for group in groups for line in group]
    assert joined(processor(preset=preset), said(*lines)) == ["\n".join(group) for group in groups]


@pytest.mark.parametrize("newlines", [False, True])
@pytest.mark.parametrize("preset", TRACES)
def test_traces_of_a_terminal_are_joined_as_others_are(preset: str, newlines: bool) -> None:
    """Every line ends with a carriage return there (`tty: true`), and keeps it."""
    groups = [[f"{line}\r" for line in group] for group in groups_of(TRACES[preset])]
    records = said(*(line for group in groups for line in group))
    if newlines:
        for record in records:
            record.message += "\n"
    lines = Batch(
        WEB,
        records,
        before=BEGINNING,
        after=BEGINNING,
        size_bytes=1000,
        newlines=newlines,
        settled=ALL_STREAMS,
    )
    made = processor(preset=preset).hold(lines, "web").records
    assert [record.message for record in made] == ["\n".join(group) for group in groups]


def test_one_carriage_return_at_the_end_of_a_line_is_no_matter_of_patterns() -> None:
    backslash = processor(**{"continue": r"^$|\.$"})
    assert joined(backslash, said("a\r", "b.\r", "\r", "\r\r", "c\rd.", "e.", "f")) == [
        "a\r\nb.\r\n\r",
        "\r\r\nc\rd.\ne.",
        "f",
    ]
    assert joined(processor(start="^a$"), said("a\r", "b\r", "a")) == ["a\r\nb\r", "a"]


@pytest.mark.parametrize("preset", TRACES)
def test_lines_that_are_no_traces_stay_what_they_are(preset: str) -> None:
    lines = ["one", "two at once", "", "GET / 200", '{"a": 1}', "Error handling is fine", "", "at noon"]
    assert joined(processor(preset=preset), said(*lines)) == lines


@pytest.mark.parametrize("cut", range(1, 5))
def test_an_empty_line_belongs_to_what_it_is_followed_by(cut: int) -> None:
    head, frame = "java.lang.Error: x", "\tat a.B.c(D.java:1)"
    for lines, wanted in (
        (["one", "", head, frame, "two"], [f"one\n\n{head}\n{frame}", "two"]),
        (["one", "", "two", "", ""], ["one", "", "two", "", ""]),
    ):
        joins, records = processor(preset="java"), said(*lines)
        made = joins.hold(batch(records[:cut]), "web").records
        rest = joins.hold(batch(records[cut:], settled=ALL_STREAMS), "web").records
        assert [record.message for record in (*made, *rest)] == wanted


_HEAD, _FRAME = "java.lang.Error: x", "\tat a.B.c(D.java:1)"


@pytest.mark.parametrize("cut", range(1, 8))
@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([_HEAD, "y", "z", _FRAME, "two"], [f"{_HEAD}\ny\nz\n{_FRAME}", "two"]),
        ([_HEAD, "y", "z", "two"], [_HEAD, "y", "z", "two"]),
        # What is no part of the message is looked at as if nothing had been before it.
        ([_HEAD, "y", "z", _HEAD, _FRAME], [_HEAD, "y", f"z\n{_HEAD}\n{_FRAME}"]),
        ([_HEAD, "y", "", _HEAD, "z", _FRAME], [_HEAD, f"y\n\n{_HEAD}\nz\n{_FRAME}"]),
        # Lines of loggers are no part of a message.
        ([_HEAD, "y", "[error] z", _FRAME], [_HEAD, "y", f"[error] z\n{_FRAME}"]),
        ([_HEAD, '{"level": 3}', _FRAME], [_HEAD, f'{{"level": 3}}\n{_FRAME}']),
        ([_HEAD, "y", "20:06:26 z\r", _HEAD], [_HEAD, "y", f"20:06:26 z\r\n{_HEAD}"]),
        (
            [_HEAD, *map(str, range(21)), _FRAME],
            [_HEAD, *map(str, range(20)), f"20\n{_FRAME}"],
        ),
    ],
)
def test_lines_of_a_message_are_joined_where_a_trace_follows(
    lines: list[str], wanted: list[str], cut: int
) -> None:
    for chosen in (None, bytes(range(1, 2)) * 30):
        joins, records, made = processor(preset="java"), said(*lines), []
        for begin in range(0, len(lines), cut):
            some = batch(records[begin : begin + cut])
            made += joins.hold(some, "web", chosen and chosen[: len(some.lines)]).records
        made += joins.hold(settling(WEB, BEGINNING, None), "web").records
        assert [record.message for record in made] == wanted
        assert joins.books.joined == len(lines) - len(wanted)


def test_lines_in_doubt_are_let_go_when_what_comes_may_not_follow_on_them() -> None:
    joins = processor(preset="java")
    assert joins.hold(batch(said("one", _HEAD, "y", "z")), "web").records == []
    joins.doubt("web")
    made = joins.hold(batch(said(*"......", _FRAME)[5:]), "web").records
    assert [record.message for record in made] == [f"one\n{_HEAD}", "y", "z"]


def test_patterns_of_ones_own() -> None:
    lines = ["a 1", " b", " c", "a 2", "d", " e"]
    first, more = r"^a ", r"^ "
    assert joined(processor(start=first), said(*lines)) == ["a 1\n b\n c", "a 2\nd\n e"]
    assert joined(processor(**{"continue": more}), said(*lines)) == ["a 1\n b\n c", "a 2", "d\n e"]
    both = processor(start=first, **{"continue": more})
    assert joined(both, said(*lines)) == ["a 1\n b\n c", "a 2", "d", " e"]
    # What comes before the first beginning is a record too.
    assert joined(processor(start=first), said("x", "y", "a 1")) == ["x\ny", "a 1"]


def test_a_record_is_its_first_line_with_more_text() -> None:
    records = said("a", " b")
    records[0] = DetailedRecord("a", "stdout", records[0].time, sequence=3, level="error", fields={"k": 1})
    (whole,) = processor(**{"continue": "^ "}).hold(batch(records, settled=ALL_STREAMS), "web").records
    assert whole == msgspec.structs.replace(records[0], message="a\n b")
    # Somebody else may have the first line as it was.
    assert records[0].message == "a"


def test_streams_and_containers_are_joined_by_themselves() -> None:
    joins = processor(**{"continue": "^ "})
    out, err = said("o1", " o2", "o3"), said("e1", " e2", stream="stderr")
    mixed = [out[0], err[0], out[1], err[1], out[2]]
    assert joined(joins, mixed) == ["o1\n o2", "e1\n e2", "o3"]
    assert [r.message for r in joins.hold(batch(out[:1]), "web").records] == []
    assert [r.message for r in joins.hold(batch(out[1:2], settled=ALL_STREAMS), "db").records] == [" o2"]
    assert [r.message for r in joins.hold(settling(WEB, BEGINNING, None), "web").records] == ["o1"]


def test_limits_cut() -> None:
    more = {"continue": "^ "}
    assert joined(processor(max_lines=2, **more), said("a", " b", " c", " d", " e")) == [
        "a\n b",
        " c\n d",
        " e",
    ]
    text = " " + "ü" * 300  # 601 bytes
    assert joined(processor(max_bytes=1024, **more), said("a", text, text)) == [f"a\n{text}", text]
    assert joined(processor(**more), said("a", " b", step_ns=10**9)) == ["a\n b"]
    assert joined(processor(**more), said("a", " b", step_ns=10**9 + 1)) == ["a", " b"]
    assert joined(processor(max_gap="200ms", **more), said("a", " b", step_ns=200_000_001)) == ["a", " b"]


def test_a_clock_that_is_set_back_is_no_gap() -> None:
    records = said("a", " b")
    records[1].time = iso_time(BEGAN_NS - 3600 * 10**9)
    assert joined(processor(**{"continue": "^ "}), records) == ["a\n b"]


def test_only_the_last_record_is_held_and_counted_when_it_goes_on() -> None:
    joins = processor(**{"continue": "^ "})
    made = joins.hold(batch(said("a", "b", " c")), "web")
    assert [record.message for record in made.records] == ["a"]
    assert set(joins.held("web")) == {"stdout"}
    assert joins.books.joined == 0
    made = joins.hold(settling(WEB, BEGINNING, None, frozenset({"stderr"})), "web")
    assert made.records == []
    made = joins.hold(settling(WEB, BEGINNING, None), "web")
    assert [record.message for record in made.records] == ["b\n c"]
    assert not joins.held("web")
    assert not joins.holding
    assert joins.books.joined == 1


def test_a_record_that_is_not_for_it_passes_and_ends_what_is_held() -> None:
    joins = processor(**{"continue": "^ "})
    made = joins.hold(batch(said("a", " b", " c", " d"), settled=ALL_STREAMS), "web", bytes([1, 1, 0, 1]))
    assert [record.message for record in made.records] == ["a\n b", " c", " d"]


def test_the_examples_of_the_options_find_what_they_are_for() -> None:
    """Their backslashes were doubled: the reference page showed patterns that join nothing."""
    fields = MultilineOptions.model_fields
    (start,) = fields["start"].examples or ()
    (further,) = fields["continue_"].examples or ()
    assert re.search(start, "2026-11-23 20:06:26 began")
    assert re.search(further, "\tat shop.Orders.pay(Orders.java:17)")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give `preset`, `start` or `continue`"),
        ({"preset": "java", "start": "^a"}, "`preset` has patterns of its own"),
        ({"start": "(a+"}, "start"),
        ({"continue": r"(?=a)b"}, "continue"),
        ({"preset": "cobol"}, "java"),
        ({"preset": "java", "max_lines": 1}, "max_lines"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        MultilineOptions.model_validate({"type": "multiline", **options})
    assert words in str(refused.value)


# --- wherever reading begins ------------------------------------------------------------------------------


class Log:
    """What a container said, with positions as sources make them."""

    def __init__(self, lines: Sequence[tuple[Stream, str, int]]) -> None:
        """(stream, text, nanoseconds since the line before)"""
        self.records: list[Record] = []
        self.anchors: list[dict[Stream, Anchor]] = [{}]
        """Before each line, and behind the last."""
        now = BEGAN_NS
        last: dict[Stream, Anchor] = {}
        for stream, text, gap_ns in lines:
            now += gap_ns
            time, before = iso_time(now), last.get(stream)
            sequence = before.sequence + 1 if before is not None and before.time == time else 0
            record = Record(text, stream, time)
            self.records.append(DetailedRecord(text, stream, time, sequence=sequence) if sequence else record)
            last = {**last, stream: Anchor(time, sequence, message_hash(text))}
            self.anchors.append(last)

    def position(self, index: int, begin: dict[Stream, int]) -> Position:
        """Before this line; of a stream that begins behind that, there."""
        return Position(
            *(StreamPosition(None, self.anchors[max(index, begin[stream])].get(stream)) for stream in STREAMS)
        )

    def begin(self, position: Position) -> dict[Stream, int]:
        """The index of each stream's first line behind a position."""
        found: dict[Stream, int] = {}
        for stream in STREAMS:
            at = position.of(stream)
            index = next(i for i, each in enumerate(self.anchors) if each.get(stream) == at.anchor)
            if (mark := at.until) is not None:
                index = next(
                    i
                    for i, record in enumerate(self.records)
                    if (record.stream, record.time, record.sequence) == (stream, mark.time, mark.sequence)
                )
            found[stream] = index
        return found

    def batches(
        self, begin: dict[Stream, int], sizes: Iterable[int], *, newlines: bool = False
    ) -> Iterable[Batch]:
        """From there on, in batches of these sizes, and one of what is left."""
        index = min(begin.values())
        before = self.position(index, begin)
        for size in (*sizes, len(self.records)):
            end = min(index + size, len(self.records))
            records = [
                record
                for at, record in enumerate(self.records[index:end], index)
                if at >= begin[record.stream]
            ]
            after = self.position(end, begin)
            yield Batch(
                WEB,
                [Record(f"{record.message}\n", record.stream, record.time) for record in records]
                if newlines
                else [msgspec.structs.replace(record) for record in records],
                before=before,
                after=after,
                size_bytes=100,
                newlines=newlines,
                ready=not newlines,
            )
            index, before = end, after


def shown(made: Batch) -> list[tuple[str, str]]:
    return [(WEB.record_id(record), record.message) for record in made.records]


_LINES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stdout", "stderr"]),
        st.sampled_from(
            [
                "plain",
                "java.lang.Error: x",
                "\tat a.B.c(D.java:1)",
                "Caused by: y",
                " more",
                "a 1",
                "",
                "\r",
                "INFO z",
            ]
        ),
        st.sampled_from([0, 1000, 10**6, 10**9, 2 * 10**9]),
    ),
    max_size=40,
)
_OPTIONS = st.sampled_from(
    [
        {"preset": "java"},
        {"preset": "java", "max_lines": 3},
        {"preset": "python"},
        {"start": "^a "},
        {"continue": "^[\t ]", "max_lines": 2},
        {"start": "^a ", "continue": "^[\t ]"},
    ]
)


@given(_LINES, _OPTIONS, st.lists(st.integers(1, 9), max_size=12), st.booleans(), st.data())
def test_the_same_records_come_out_however_it_is_cut_and_wherever_it_begins_again(
    lines: list[tuple[Stream, str, int]],
    options: dict[str, Any],
    sizes: list[int],
    newlines: bool,
    data: st.DataObject,
) -> None:
    log = Log(lines)
    joins = processor(**options)
    at_once = shown(joins.hold(batch(log.records, settled=ALL_STREAMS), "web"))
    assert joins.books.joined == len(lines) - len(at_once)

    got: list[tuple[str, str]] = []
    position = BEGINNING
    for _ in range(data.draw(st.integers(0, 3), "restarts")):
        again = processor(**options)
        batches = list(log.batches(log.begin(position), sizes, newlines=newlines))
        for each in batches[: data.draw(st.integers(0, len(batches)), "killed behind")]:
            made = again.hold(each, "web")
            got += shown(made)
            position = made.after
    again = processor(**options)
    for each in log.batches(log.begin(position), sizes, newlines=newlines):
        got += shown(again.hold(each, "web"))
    got += shown(again.hold(settling(WEB, BEGINNING, None), "web"))
    assert sorted(got) == sorted(at_once)
    for stream in "oe":
        of_one = [each for each in at_once if each[0][13] == stream]
        assert [each for each in got if each[0][13] == stream] == of_one


@given(_LINES, _OPTIONS, st.integers(1, 9), st.data())
def test_what_is_read_again_by_the_same_reader_is_not_joined_twice(
    lines: list[tuple[Stream, str, int]], options: dict[str, Any], size: int, data: st.DataObject
) -> None:
    """The reader goes back to where the routes are, and the processor knows what it held."""
    log = Log(lines)
    at_once = shown(processor(**options).hold(batch(log.records, settled=ALL_STREAMS), "web"))
    joins = processor(**options)
    got: list[tuple[str, str]] = []
    position = BEGINNING
    batches = list(log.batches(log.begin(BEGINNING), [size] * 40))
    for each in batches[: data.draw(st.integers(0, len(batches)), "goes back behind")]:
        made = joins.hold(each, "web")
        got += shown(made)
        position = made.after
    joins.doubt("web")
    for each in log.batches(log.begin(position), [size] * 40):
        got += shown(joins.hold(each, "web"))
    got += shown(joins.hold(settling(WEB, BEGINNING, None), "web"))
    assert sorted(got) == sorted(at_once)
