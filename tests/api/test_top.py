"""What `/v1/top`, the books and `?newest` say, over a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from logroute.api.address import Address
from logroute.sinks import Retryable
from tests.api.running import client_of, daemon_with, picky, until
from tests.router.stand_ins import StandInSink


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(path=str(tmp_path / "l.sock"))


async def test_top_says_what_was_read_of_each_container_once_however_many_routes_take_it(
    address: Address,
) -> None:
    async with (
        daemon_with(None, {"a": picky(), "b": picky()}, range(1, 51), address=address) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["b"].statistics().delivered == 50)
        answer = (await client.get("/v1/top?count=5")).json()
        stats = (await client.get("/v1/stats")).json()
    (web,) = answer["containers"]
    source = stats["sources"]["docker"]
    assert (web["name"], web["source"], web["records"]) == ("web", "docker", 50)
    assert web["bytes"] == source["bytes"]
    assert stats["daemon"]["began"] <= answer["time"]


@pytest.mark.parametrize("count", ["0", "-1", "x", "2001", "1e3"])
async def test_a_count_that_is_none_is_a_problem(address: Address, count: str) -> None:
    async with daemon_with(None, {"a": picky()}, address=address), client_of(address) as client:
        answer = await client.get("/v1/top", params={"count": count})
    assert answer.status_code == 400
    assert "count is a whole number from 1 to 2000" in answer.json()["detail"]


async def test_the_last_error_of_a_route_stays_in_its_books_when_it_is_well_again(address: Address) -> None:
    sinks = {"a": lambda route: StandInSink(route, [Retryable("no room for it")])}
    async with (
        daemon_with(None, sinks, [1], address=address, retry_initial_s=0.01) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["a"].statistics().delivered == 1)
        book = (await client.get("/v1/stats")).json()["routes"]["a"]
    assert book["up"]
    assert "no room for it" in book["last_error"]
    assert book["failed"] <= book["since"]


async def test_the_newest_dead_letters_come_last_one_first(address: Address, tmp_path: Path) -> None:
    async with (
        daemon_with(tmp_path / "state", {"a": picky(2, 4, 6)}, range(1, 8), address=address) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["a"].statistics().dead_letters == 3)
        page = (await client.get("/v1/routes/a/deadletters?newest=true&count=2")).json()
        refused = await client.get("/v1/routes/a/deadletters?newest=true&after=1")
    assert [letter["message"] for letter in page["letters"]] == ["6", "4"]
    assert "next" not in page
    assert refused.status_code == 400
