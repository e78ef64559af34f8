"""Which containers and streams a match takes, and what it says about mistakes."""

from __future__ import annotations

import fnmatch
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router.match import EVERYTHING, NO, Match, MatchError
from logroute.router.paths import image_reference, path
from logroute.router.position import BEGINNING
from logroute.router.record import ALL_STREAMS, Batch, DetailedRecord, Image, Origin, Record
from logroute.router.regex import RegexSet
from logroute.router.selection import Chooser, Look

ID = "3b74a877e0f9" + "ab" * 26
WEB = Origin(
    "docker:1",
    "docker",
    id=ID,
    name="web-1",
    image=Image.parse("registry.example.com:5000/shop/web:1.2"),
    labels={
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": "web",
        "com.docker.compose.container-number": "2",
        "audit": "true",
        "version": "1.10",
        "empty": "",
        "path": "/health",
    },
    runtime="docker",
    host="node-7",
)
BARE = Origin("file:/var/log/app.log", "audit-files", file="/var/log/app.log")


def takes(value: Any, origin: Origin = WEB) -> bool:
    decision = Match.parse(value).decide(origin)
    assert decision in (NO, ALL_STREAMS)
    return decision == ALL_STREAMS


def mistakes(value: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    with pytest.raises(MatchError) as caught:
        Match.parse(value)
    assert (str(caught.value), caught.value.path) == (
        str(caught.value.mistakes[0]),
        caught.value.mistakes[0].path,
    )
    return [(str(mistake), mistake.path) for mistake in caught.value.mistakes]


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"container": "web-1"},
        {"container": "web-*"},
        {"container": "web-?"},
        {"container": "web-[0-9]"},
        {"container": ["db", "web-*"]},
        {"container": "/^web-\\d+$/"},
        {"container": "/EB/i"},
        {"container": ID},
        {"container": ID[:12]},
        {"container": {"name": "web-1", "runtime": "docker"}},
        {"container.id": ID[:4] + "*"},
        {"image": "web"},
        {"image": "web:1.2"},
        {"image": "web:1.*"},
        {"image": "registry.example.com:5000/shop/web"},
        {"image": "registry.example.com:5000/shop/web:1.2"},
        {"image": "*/shop/*"},
        {"container.image": "registry.example.com:5000/shop/web:1.2"},
        {"label.audit": "true"},
        {"label": {"audit": True}},
        {"label": {"audit": "*", "version": "1.*"}},
        {"label": "audit"},
        {"label": ["nope", "audit"]},
        {"label": "com.docker.compose.*"},
        {"label.empty": "*"},
        {"label.empty": ""},
        {"label.path": "/health"},
        {"compose.project": "shop"},
        {"compose": {"project": "shop", "service": ["web", "api"]}},
        {"compose.number": ">=2"},
        {"compose.number": "< 3"},
        {"compose.number": 2},
        {"compose.number": "2"},
        {"label.version": 1.1},
        {"label.version": ">=1.05"},
        {"host.name": "node-*"},
        {"source": "docker"},
        {"any": [{"container": "db"}, {"container": "web-1"}]},
        {"all": [{"container": "web-*"}, {"container": "*-1"}]},
        {"not": {"container": "noisy-*"}},
        {"not": {"container": "web-1", "image": "db"}},
        {"not": [{"container": "db"}, {"container": "cache"}]},
        {"not": {"not": {"container": "web-1"}}},
    ],
)
def test_takes(value: Any) -> None:
    assert takes(value)


@pytest.mark.parametrize(
    "value",
    [
        {"container": "web"},
        {"container": "WEB-1"},
        {"container": "eb-"},
        {"container": "/^eb/"},
        {"container": "/EB/"},
        {"container": "3b*"},  # a glob never looks at the id
        {"container": ID[:11]},
        {"container": ID[:12].upper()},
        {"container": "web-*", "image": "db"},
        {"image": "we"},
        {"image": "shop/web"},
        {"image": "1.2"},
        {"label": "nope"},
        {"label.audit": "false"},
        {"label.nope": "*"},
        {"label.empty": "?*"},
        {"compose.number": ">2"},
        {"compose.number": 3},
        {"label.audit": ">0"},
        {"swarm.stack": "*"},
        {"any": [{"container": "db"}, {"container": "cache"}]},
        {"all": [{"container": "web-*"}, {"container": "db"}]},
        {"not": {"container": "web-1"}},
        {"not": [{"container": "db"}, {"container": "web-1"}]},
    ],
)
def test_does_not_take(value: Any) -> None:
    assert not takes(value)


def test_a_glob_crosses_everything() -> None:
    assert takes({"image": "registry*1.2"})
    assert takes({"log.file.path": "/var/*.log"}, BARE)


def test_a_glob_takes_a_character_literally_in_brackets() -> None:
    origin = Origin("k", "s", labels={"rule": "what?*"})
    assert takes({"label.rule": "what[?][*]"}, origin)
    assert not takes({"label.rule": "wha[?][*]"}, origin)


@pytest.mark.parametrize("operator", [">=", "<=", ">", "<", "==", "!="])
def test_a_comparison_on_an_absent_path_is_false(operator: str) -> None:
    assert not takes({"compose.number": f"{operator}0"}, BARE)
    assert not takes({"label.audit": f"{operator}0"})  # `true` is no number


@pytest.mark.parametrize("spelled", ["inf", "nan", "1_0", "1e9", "", " 1", "0x10", "١", "9" * 5000])
def test_what_is_not_plainly_a_number_passes_no_comparison(spelled: str) -> None:
    origin = Origin("k", "s", labels={"n": spelled})
    assert not takes({"label.n": ">=0"}, origin)
    assert not takes({"label.n": "<0"}, origin)


def test_large_numbers_are_compared_exactly() -> None:
    origin = Origin("k", "s", labels={"n": "9007199254740993"})
    assert takes({"label.n": ">9007199254740992"}, origin)
    assert not takes({"label.n": 9007199254740992}, origin)


def test_an_image_with_a_digest_is_found_by_its_name() -> None:
    origin = Origin("k", "s", image=Image.parse("shop/web@sha256:" + "0" * 64))
    assert takes({"image": "web"}, origin)
    assert takes({"image": "shop/web@sha256:00*"}, origin)
    assert not takes({"image": "web:*"}, origin)
    both = Origin("k", "s", image=Image.parse("shop/web:1@sha256:" + "0" * 64))
    for name in ("web", "web:1", "shop/web:1", "web:1@sha256:00*", "shop/web@sha256:00*"):
        assert takes({"image": name}, both)


def test_a_container_called_like_an_id_is_found_by_its_name() -> None:
    assert takes({"container": "deadbeefcafe"}, Origin("k", "s", name="deadbeefcafe", id="0" * 64))


def test_a_strangers_long_label_does_not_stall_a_regex() -> None:
    origin = Origin("k", "s", labels={"x": "a" * 1_000_000})
    begin = time.process_time()
    assert not takes({"label.x": "/a*b/"}, origin)
    assert time.process_time() - begin < 2  # it would be hours


def test_equality_and_globs_see_the_whole_of_a_long_value() -> None:
    origin = Origin("k", "s", labels={"x": "a" * 5000})
    assert takes({"label.x": "a" * 5000}, origin)
    assert not takes({"label.x": "a" * 4096}, origin)
    assert takes({"label.x": "a*a"}, origin)


# --- streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "streams"),
    [
        ({"stream": "stderr"}, {"stderr"}),
        ({"stream": ["stdout", "stderr"]}, {"stdout", "stderr"}),
        ({"stream": "std*"}, {"stdout", "stderr"}),
        ({"stream": "/err/"}, {"stderr"}),
        ({"not": {"stream": "stderr"}}, {"stdout"}),
        ({"not": {"stream": "stderr", "container": "web-1"}}, {"stdout"}),
        ({"not": {"stream": "stderr", "container": "db"}}, {"stdout", "stderr"}),
        ({"stream": "stderr", "container": "db"}, set()),
        ({"any": [{"stream": "stderr"}, {"container": "web-1"}]}, {"stdout", "stderr"}),
        ({"any": [{"stream": "stderr"}, {"container": "db"}]}, {"stderr"}),
        ({"all": [{"stream": "stderr"}, {"stream": "stdout"}]}, set()),
    ],
)
def test_a_stream_is_decided_for_each_of_the_two(value: Any, streams: set[str]) -> None:
    assert Match.parse(value).decide(WEB) == streams


# --- records ------------------------------------------------------------------------------------------

TIME = "2026-11-23T20:06:26.123456789Z"
RECORDS: list[Record] = [
    Record("GET /health 200", "stdout", TIME),
    DetailedRecord("GET /pay 502", "stderr", TIME, level="error", fields={"status": 502, "user": "ada"}),
    DetailedRecord("slow", "stderr", TIME, level="warn", fields={"took": {"ms": 7}, "tags": ["a", "b"]}),
    DetailedRecord("two\nlines", "stdout", TIME, level="debug", fields={"ok": True, "none": None}),
    Record("", "stdout", "2026-11-24T00:00:00.000000000Z"),
]


def taken(value: Any, origin: Origin = WEB) -> list[int]:
    """Which of RECORDS a match takes."""
    match = Match.parse(value)
    streams, selector = match.decide(origin), match.selector(origin)
    batch = Batch(origin, list(RECORDS), before=BEGINNING, after=BEGINNING, size_bytes=1000, ready=True)
    if selector is not None:
        batch = Look(batch, RegexSet(selector.regexes())).batch_of(selector)
    return [RECORDS.index(record) for record in batch.of_streams(streams).records]


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ({"level": ">=warn"}, [1, 2]),
        ({"level": "warn"}, [2]),
        ({"level": "WARNING"}, [2]),
        ({"level": ["debug", "error"]}, [1, 3]),
        ({"level": "!=info"}, [1, 2, 3]),
        ({"level": ">=info"}, [0, 1, 2, 4]),  # where there is none it counts as info
        ({"not": {"level": ">=info"}}, [3]),
        ({"message": "/GET/"}, [0, 1]),
        ({"message": "/get/i"}, [0, 1]),
        ({"message": "/get/"}, []),
        ({"message": ["/^GET.*200$/", "slow"]}, [0, 2]),
        ({"message": "GET *"}, [0, 1]),
        ({"message": "*lines"}, [3]),
        ({"message": "two*lines"}, [3]),
        ({"message": "/^lines/"}, []),  # the beginning is that of the message, not of a line in it
        ({"message": "/two$/"}, []),
        ({"message": "*"}, [0, 1, 2, 3, 4]),
        ({"message": ""}, [4]),
        ({"message": "/(?<=GET )[/]pay/p"}, [1]),
        ({"fields.status": ">=500"}, [1]),
        ({"fields": {"user": "a*", "status": 502}}, [1]),
        ({"fields.took.ms": "<8"}, [2]),
        ({"fields.took": "*"}, [2]),
        ({"fields.tags": "b"}, [2]),
        ({"fields.ok": True}, [3]),
        ({"fields.none": "*"}, []),
        ({"not": {"fields.status": ">=500"}}, [0, 2, 3, 4]),
        ({"time": ">=2026-11-24"}, [4]),
        ({"time": "<2026-11-23T20:06:27Z"}, [0, 1, 2, 3]),
        ({"level": ">=warn", "message": "/pay/"}, [1]),
        ({"any": [{"level": "error"}, {"message": "slow"}]}, [1, 2]),
        ({"any": [{"level": "error"}, {"container": "web-*"}]}, [0, 1, 2, 3, 4]),
        ({"any": [{"level": "error"}, {"container": "db"}]}, [1]),
        ({"level": "error", "container": "db"}, []),
        ({"stream": "stdout", "message": "/GET/"}, [0]),
        ({"any": [{"stream": "stdout"}, {"level": "error"}]}, [0, 1, 3, 4]),
        ({"not": {"stream": "stdout", "level": "debug"}}, [0, 1, 2, 4]),
    ],
)
def test_takes_records(value: Any, numbers: list[int]) -> None:
    assert taken(value) == numbers
    assert taken(Match.parse(value).to_value()) == numbers


@pytest.mark.parametrize(
    "point", ["2026-03-10T12:00:00Z", "2026-03-10T12:00", "2026-03-10T12:00:00.0000000001"]
)
@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (">=", (False, True, True)),
        (">", (False, False, True)),
        ("==", (False, True, False)),
        ("!=", (True, False, True)),
        ("<=", (True, True, False)),
        ("<", (True, False, False)),
    ],
)
def test_a_point_in_time_is_what_has_its_very_time(point: str, compare: str, holds: tuple[bool, ...]) -> None:
    times = (
        "2026-03-10T11:59:59.999999999Z",
        "2026-03-10T12:00:00.000000000Z",
        "2026-03-10T12:00:00.000000001Z",
    )
    records: list[Record] = [Record("m", "stdout", time) for time in times]
    batch = Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=1, ready=True)
    mask = Chooser(Match.parse({"time": f"{compare}{point}"})).mask(batch)
    assert mask is not None
    assert tuple(map(bool, mask.to_bytes(3, "little"))) == holds


def test_what_the_container_decides_costs_no_look_at_records() -> None:
    match = Match.parse({"container": "db", "level": ">=warn"})
    assert match.decide(WEB) == NO
    assert match.selector(WEB) is None
    match = Match.parse({"any": [{"container": "web-*"}, {"level": ">=warn"}]})
    assert (match.decide(WEB), match.selector(WEB)) == (ALL_STREAMS, None)
    # What is left for two containers is the same, so that they share what is made of it.
    match = Match.parse({"any": [{"container": "db"}, {"level": ">=warn"}]})
    assert match.selector(WEB) == match.selector(BARE) != Match.parse({"level": ">=error"}).selector(WEB)


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({}, set()),
        ({"container": "level", "label": {"fields.x": "message"}, "stream": "stdout"}, set()),
        ({"message": "*level*"}, {"message"}),
        (
            {"any": [{"level": ">=warn"}, {"not": {"fields.took": ">1"}}], "container": "web"},
            {"level", "fields.took"},
        ),
    ],
)
def test_it_tells_what_it_looks_at_of_records(value: Any, paths: set[str]) -> None:
    assert Match.parse(value).record_paths == paths


def test_explain_leaves_open_what_depends_on_the_record() -> None:
    match = Match.parse({"container": "web-*", "level": ">=warn", "not": {"message": "/x/"}})
    assert match.explain(WEB) == [
        ("container: web-* (it is 'web-1')", True),
        ("level: >=warn", None),
        ("not message: /x/", None),
    ]


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words", "at"),
    [
        (None, "expected conditions such as {container: web-*}, not nothing", ()),
        ("web-*", "conditions look like container ~", ()),
        ([{"container": "x"}], "not a list", ()),
        ({"contaner": "x"}, 'unknown condition "contaner"; did you mean "container"?', ("contaner",)),
        ({"labels": {"a": "b"}}, 'did you mean "label.a"?', ("labels", "a")),
        ({"container": {"nmae": "x"}}, 'did you mean "container.name"?', ("container", "nmae")),
        ({"container": None}, "expected a value for 'container', not nothing", ("container",)),
        ({"container": ["x", ["y"]]}, "expected a value for 'container', not a list", ("container", 1)),
        ({"container": []}, "an empty list for 'container' would never match", ("container",)),
        ({"container": "/web"}, "no container's name begins with '/'", ("container",)),
        ({"label": {}}, "'label' has no condition", ("label",)),
        ({"label": {"a": {"b": "c"}}}, "not a mapping", ("label", "a")),
        ({"image": "/(/"}, "no regular expression at its character 1: missing )", ("image",)),
        ({"image": "<none>"}, "compares with no number", ("image",)),
        ({"stream": "stdot"}, "there is no stream 'stdot'", ("stream",)),
        ({"level": "wran"}, 'there is no level "wran"; did you mean "warn"?', ("level",)),
        ({"level": [">=x7"]}, 'there is no level "x7"; there are trace, debug, info', ("level", 0)),
        ({"message": "/(?<!x)y/"}, "cannot be searched in linear time", ("message",)),
        ({"label.x": r"/(a)\1/"}, r"/(a)\1/p has Python's engine do it", ("label.x",)),
        ({"message": "/(?<!x)y/i"}, "/(?<!x)y/ip has Python's engine do it", ("message",)),
        ({"message": "[z-a]"}, "'[z-a]' is no glob", ("message",)),
        ({"time": ">yesterday"}, "'yesterday' is no time such as 2026-11-23", ("time",)),
        ({"time": ">=2026-13-01"}, "there is no such time: '2026-13-01'", ("time",)),
        ({"time": "<2026-02-29T12:00"}, "there is no such time: '2026-02-29T12:00'", ("time",)),
        ({"any": {"container": "x"}}, "'any' takes a list of matches, not a mapping", ("any",)),
        ({"any": []}, "an empty list of matches", ("any",)),
        ({"not": {}}, "no condition: it would take everything", ("not",)),
        ({"any": [{"container": "x"}, {}]}, "it would take everything", ("any", 1)),
        ({"not": "x"}, "expected conditions", ("not",)),
        ({"any": [{"all": [{"not": {"x": 1}}]}]}, 'unknown condition "x"', ("any", 0, "all", 0, "not", "x")),
    ],
)
def test_a_mistake_says_what_is_wrong_and_where(value: Any, words: str, at: tuple[str | int, ...]) -> None:
    [(message, path)] = mistakes(value)
    assert words in message
    assert path == at


def test_where_containers_are_chosen_no_record_is_looked_at() -> None:
    value = {"container": "web-*", "not": {"level": "debug"}}
    with pytest.raises(MatchError, match="'level' looks at records; only containers") as caught:
        Match.parse(value, containers=True)
    assert caught.value.path == ("not", "level")
    assert Match.parse({"container": "web-*", "stream": "stderr"}, containers=True).decide(WEB) == {"stderr"}


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes({"contaner": "x", "image": ["/(/", "web"], "any": [{"stream": "stdot"}, {"level": "x"}]})
    assert [at for _, at in found] == [
        ("contaner",),
        ("image", 0),
        ("any", 0, "stream"),
        ("any", 1, "level"),
    ]


def test_endless_nesting_is_a_mistake_and_no_crash() -> None:
    value: dict[str, Any] = {"container": "x"}
    for _ in range(5000):
        value = {"not": value}
    assert "nested too deeply" in mistakes(value)[0][0]


# --- explaining ---------------------------------------------------------------------------------------


def test_explain_tells_each_condition_with_what_the_container_has() -> None:
    match = Match.parse(
        {"container": "db-*", "label.tier": "front", "not": {"compose.service": "web"}, "stream": "stderr"}
    )
    assert match.explain(WEB) == [
        ("container: db-* (it is 'web-1')", False),
        ("label.tier: front (it is absent)", False),
        ("not compose.service: web (it is 'web')", False),
        ("stream: stderr", True),
    ]


def test_explain_keeps_alternatives_together() -> None:
    match = Match.parse({"any": [{"container": ["db", "cache"]}, {"source": "docker", "host.name": "n"}]})
    assert match.explain(WEB) == [
        (
            "container: db or cache (it is 'web-1') or "
            "(source: docker (it is 'docker') and host.name: n (it is 'node-7'))",
            False,
        )
    ]


def test_explain_shows_a_strangers_text_harmless_and_short() -> None:
    origin = Origin("k", "s", labels={"x": "\x1b[31m" + "a" * 1000})
    [(text, holds)] = Match.parse({"label.x": "y"}).explain(origin)
    assert not holds
    assert "\x1b" not in text
    assert len(text) < 150


# --- properties ---------------------------------------------------------------------------------------

FIELDS = [None, {}, {"a": "web"}, {"a": 7, "b": "1.10"}, {"a": {"b": "db"}}, {"a.b": True}]
NAMES = ["web", "web-1", "db", "a/b", "", "7", "1.10", "true"]
PATTERNS = [*NAMES, "*", "we*", "?b", "[wd]*", "/e/", "/^D/i", ">=2", "<7.5", "!=7", 7, 1.1, True]
KEYS = [
    *("container", "container.name", "image", "label.a", "label.b", "label"),
    *("compose.number", "host.name", "source", "message", "fields.a", "fields.a.b"),
]


def _condition() -> st.SearchStrategy[dict[str, Any]]:
    pattern = st.sampled_from(PATTERNS)
    values = pattern | st.lists(pattern, min_size=1, max_size=3)
    streams = st.sampled_from(["stdout", "stderr", "std*", ["stdout", "stderr"], "/err/"])
    return st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=2) | st.fixed_dictionaries(
        {"stream": streams}
    )


MATCHES = st.recursive(
    _condition(),
    lambda below: st.one_of(
        st.fixed_dictionaries({"any": st.lists(below, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"all": st.lists(below, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": below | st.lists(below, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"not": below, "any": st.lists(below, min_size=1, max_size=2)}),
    ),
    max_leaves=8,
)
ORIGINS = st.builds(
    lambda name, image, labels, number, host: Origin(
        "k",
        "docker",
        name=name,
        image=Image.parse(image) if image else None,
        labels=labels | ({"com.docker.compose.container-number": number} if number else {}),
        host=host,
    ),
    st.sampled_from(NAMES),
    st.sampled_from(["", "web", "x/web:1.10", "db:7"]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(NAMES)),
    st.sampled_from(["", "2", "7"]),
    st.sampled_from(["", "web"]),
)


def naively(value: Any, origin: Origin, record: Record) -> bool:
    """What the documentation says, once more, for one record."""
    held = []
    for key, below in value.items():
        if key == "any":
            held.append(any(naively(item, origin, record) for item in below))
        elif key == "all":
            held.append(all(naively(item, origin, record) for item in below))
        elif key == "not":
            items = below if isinstance(below, list) else [below]
            held.append(not any(naively(item, origin, record) for item in items))
        else:
            wanted = below if isinstance(below, list) else [below]
            held.append(any(passes(w, v) for w in wanted for v in values(key, origin, record)))
    return all(held)


def values(key: str, origin: Origin, record: Record) -> list[Any]:
    if key == "label":
        return list(origin.labels)
    if key == "image":
        if not origin.image:
            return []
        reference, name = str(image_reference(origin)), origin.image.name
        return [reference, name, reference.split("/")[-1], name.split("/")[-1]]
    value = path({"container": "container.name"}.get(key, key)).of_record(origin, record)
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, dict):
        return [json.dumps(value, separators=(",", ":"))]
    return [] if value is None else [value]


def passes(wanted: Any, value: Any) -> bool:
    number = float(value) if re.fullmatch(r"[\d.]+", str(value)) else None
    if wanted is True:
        wanted = "true"
    if isinstance(wanted, int | float):
        return number == wanted
    if found := re.fullmatch("(>=|<|!=)(.*)", wanted):
        limit = float(found[2])
        return (
            number is not None
            and {
                ">=": number >= limit,
                "<": number < limit,
                "!=": number != limit,
            }[found[1]]
        )
    if found := re.fullmatch("/(.+)/(i?)", wanted):
        return bool(re.search(found[1], str(value), re.IGNORECASE if found[2] else 0))
    return fnmatch.fnmatchcase(str(value), wanted)


RECORDS_OF_ALL_KINDS = st.lists(
    st.builds(
        lambda message, stream, fields: DetailedRecord(message, stream, TIME, fields=fields),
        st.sampled_from(NAMES),
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from(FIELDS),
    ),
    max_size=8,
)


@given(MATCHES, ORIGINS, RECORDS_OF_ALL_KINDS)
def test_what_is_decided_for_the_container_and_in_batches_is_what_holds_for_each_record(
    value: Any, origin: Origin, records: list[Record]
) -> None:
    match = Match.parse(value)
    batch = Batch(origin, records, before=BEGINNING, after=BEGINNING, size_bytes=0, ready=True)
    if (selector := match.selector(origin)) is not None:
        batch = Look(batch, RegexSet(selector.regexes())).batch_of(selector)
    expected = [record for record in records if naively(value, origin, record)]
    assert batch.of_streams(match.decide(origin)).records == expected


@given(MATCHES, ORIGINS)
def test_the_canonical_value_is_json_and_means_the_same(value: Any, origin: Origin) -> None:
    match = Match.parse(value)
    canonical = json.loads(json.dumps(match.to_value()))
    again = Match.parse(canonical)
    assert again.to_value() == canonical
    assert again.decide(origin) == match.decide(origin)


@given(MATCHES, ORIGINS)
def test_a_container_that_is_taken_fails_no_condition(value: Any, origin: Origin) -> None:
    match = Match.parse(value)
    explained = match.explain(origin)
    if match.decide(origin):
        assert all(holds is not False for _, holds in explained)


def test_the_canonical_value_has_one_spelling() -> None:
    match = Match.parse({"label": {"a": True}, "compose": {"project": "x"}, "not": [{"image": "x"}]})
    assert match.to_value() == {"label.a": "true", "compose.project": "x", "not": {"any": [{"image": "x"}]}}
    assert EVERYTHING.to_value() == {} == Match.parse({}).to_value()
    assert match == Match.parse(match.to_value())
