"""Who says how much, as the router counts it."""

from __future__ import annotations

import pytest

from logroute.router import talkers as talkers_module
from logroute.router.record import RECORD_OVERHEAD_BYTES, Batch
from logroute.router.talkers import Talkers
from tests.router.stand_ins import batch, origin


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def talkers(clock: Clock) -> Talkers:
    return Talkers(clock)


def said(name: str, text_bytes: int, records: int = 1) -> Batch:
    size = text_bytes + RECORD_OVERHEAD_BYTES * records
    return batch(origin(name), range(1, records + 1), size_bytes=size)


def names(talkers: Talkers, count: int = 100) -> list[str]:
    return [talker.name for talker in talkers.noisiest(count)]


def test_records_and_the_bytes_of_their_text_are_added_up(talkers: Talkers) -> None:
    talkers.count(said("web", 300, records=3))
    talkers.count(said("web", 50))
    (web,) = talkers.noisiest(10)
    assert (web.name, web.id, web.source, web.records, web.bytes) == ("web", "web" * 12, "docker", 4, 350)


def test_who_was_loud_long_ago_stands_behind_who_is_loud_now(talkers: Talkers, clock: Clock) -> None:
    talkers.count(said("once", 1_000_000))
    talkers.count(said("now", 10))
    assert names(talkers) == ["once", "now"]
    for _ in range(3):
        clock.now += talkers_module.LATELY_S + 0.1
        talkers.count(said("now", 10))
        order = names(talkers)
    assert order == ["now", "once"]


def test_many_who_ask_do_not_make_lately_shorter(talkers: Talkers, clock: Clock) -> None:
    clock.now = 100.0
    talkers.noisiest(1)
    talkers.count(said("loud", 1000))
    for _ in range(10):
        clock.now += 0.1
        talkers.count(said("quiet", 10))
        assert names(talkers) == ["loud", "quiet"]


def test_of_very_many_the_quietest_are_forgotten_and_the_loud_ones_kept(
    talkers: Talkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talkers_module, "MOST", 10)
    talkers.count(said("loud", 10_000))
    for number in range(200):
        talkers.count(said(f"job-{number}", 10))
        assert len(talkers) <= 21
    found = talkers.noisiest(100)
    assert (found[0].name, found[0].bytes) == ("loud", 10_000)
    assert "job-199" in [talker.name for talker in found]


def test_a_container_that_is_renamed_goes_on_under_its_new_name(talkers: Talkers) -> None:
    web = origin("web")
    talkers.count(batch(web, [1]))
    web.name = "shop"
    talkers.renamed(web)
    talkers.renamed(origin("unknown"))
    assert names(talkers) == ["shop"]
