"""The paths that matches and templates know."""

from __future__ import annotations

import pytest

from logroute.router.paths import PATHS, UnknownPath, image_reference, path
from logroute.router.record import DetailedRecord, Image, Origin, Record

ORIGIN = Origin(
    "docker:1",
    "docker",
    id="3b74a877e0f9" + "0" * 52,
    name="api-1",
    image=Image("shop/api", "2"),
    env={"REGION": "eu-1"},
    labels={
        "com.docker.compose.project": "shop",
        "com.docker.compose.container-number": "2",
        "com.example.tier": "front",
        "empty": "",
    },
    runtime="docker",
    host="node-7",
)
RECORD = DetailedRecord(
    "login failed",
    "stderr",
    "2026-11-23T20:06:26.123456789Z",
    level="error",
    fields={"a": {"b": 1}, "a.c": 2},
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", "2026-11-23T20:06:26.123456789Z"),
        ("message", "login failed"),
        ("stream", "stderr"),
        ("level", "error"),
        ("id", "3b74a877e0f9-e2026-11-23T20:06:26.123456789Z"),
        ("fields.a", {"b": 1}),
        ("fields.a.b", 1),
        ("fields.a.c", 2),
        ("fields.a.b.c", None),
        ("fields.x", None),
        ("host.name", "node-7"),
        ("source", "docker"),
        ("container.id", ORIGIN.id),
        ("container.name", "api-1"),
        ("container.image", "shop/api:2"),
        ("container.runtime", "docker"),
        ("label.com.example.tier", "front"),
        ("label.empty", ""),
        ("label.absent", None),
        ("env.REGION", "eu-1"),
        ("env.OTHER", None),
        ("compose.project", "shop"),
        ("compose.service", None),
        ("compose.number", 2),
        ("swarm.stack", None),
        ("kubernetes.pod", None),
        ("log.file.path", None),
    ],
)
def test_a_path_leads_to_its_value_and_to_none_where_it_is_absent(name: str, value: object) -> None:
    assert path(name).of_record(ORIGIN, RECORD) == value


def test_only_what_the_container_says_is_constant() -> None:
    varying = {name for name, known in PATHS.items() if not known.constant}
    assert varying == {"time", "message", "stream", "level", "id"}
    assert path("label.x").constant
    assert not path("fields.x").constant


def test_a_constant_path_needs_no_record() -> None:
    for known in PATHS.values():
        if known.of_origin is not None:
            assert known.of_origin(ORIGIN) == known.of_record(ORIGIN, RECORD)


def test_everything_is_absent_on_an_origin_of_which_nothing_is_known() -> None:
    nobody = Origin("file:/x", "")
    record = Record("", "stdout", "")
    assert {n for n, p in PATHS.items() if p.constant and p.of_record(nobody, record) is not None} == set()


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("container.nmae", "container.name"),
        ("labels.tier", "label.tier"),
        ("lable.com.example.tier", "label.com.example.tier"),
        ("field.status", "fields.status"),
        ("compose.projct", "compose.project"),
        ("mesage", "message"),
    ],
)
def test_an_unknown_path_is_answered_with_the_one_that_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownPath, match=f'unknown path "{wrong}"; did you mean "{meant}"'):
        path(wrong)


@pytest.mark.parametrize("wrong", ["", "label", "label.", "env.", "fields.", "zzzzzz", "container.name.x"])
def test_what_is_no_path_is_refused(wrong: str) -> None:
    with pytest.raises(UnknownPath):
        path(wrong)


def test_a_digest_is_a_part_of_its_own() -> None:
    both = Origin("k", "s", image=Image.parse("r:5000/shop/api:2@sha256:01"))
    assert path("container.image.digest").of_record(both, Record("m", "stdout", "t")) == "sha256:01"
    assert both.constants()["container"]["image"] == {
        "name": "r:5000/shop/api", "tag": "2", "digest": "sha256:01",
    }  # fmt: skip
    assert Image.parse("api@sha256:01") == Image("api", None, "sha256:01")
    assert path("container.image.digest").of_record(ORIGIN, Record("m", "stdout", "t")) is None


@pytest.mark.parametrize(
    "reference",
    [
        "api",
        "api:2",
        "reg:5000/shop/api",
        "reg:5000/shop/api:1.2",
        "api@sha256:0123456789abcdef",
        "r:5000/api:2@sha256:01",
    ],
)
def test_an_image_is_called_as_the_container_was_started_with(reference: str) -> None:
    assert image_reference(Origin("k", "s", image=Image.parse(reference))) == reference
