"""`/metrics`: the books as Prometheus reads them; docs, alerts and the dashboard name only what there is."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from logroute.api.address import Address
from logroute.config.components import PROCESSORS
from logroute.processors.metrics import MetricsOptions
from logroute.router.chain import StagePlan
from logroute.router.match import EVERYTHING
from logroute.sinks import SinkStatistics
from tests.api.running import client_of, daemon_with, picky, until
from tests.router.stand_ins import StandInSink

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"logroute_[a-z_]+")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(path=str(tmp_path / "l.sock"))


async def scraped(address: Address, **headers: str) -> tuple[str, str]:
    async with client_of(address) as client:
        answer = await client.get("/metrics", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text, answer.headers["content-type"]


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def counting(**options: Any) -> StagePlan:
    made = MetricsOptions.model_validate({"name": "said", **options})
    return StagePlan("processors[0].metrics", EVERYTHING, partial(PROCESSORS.create, made), str(options))


async def test_the_books_add_up(address: Address, tmp_path: Path) -> None:
    sinks = {"all": picky(3), "other": StandInSink}
    async with daemon_with(tmp_path / "state", sinks, range(1, 11), address=address) as daemon:
        routes = daemon.router.routes
        await until(lambda: all(route.statistics().delivered >= 9 for route in routes.values()))
        found = samples((await scraped(address))[0])
        words = ("delivered", "duplicates", "rejected")
        done = sum(of(found, f"logroute_route_{word}_records_total", route="all") for word in words)
        queued = sum(
            of(found, "logroute_route_queue_records", route="all", store=store)
            for store in ("memory", "disk")
        )
        in_flight = of(found, "logroute_route_in_flight_records", route="all")
        received = of(found, "logroute_route_received_records_total", route="all")
        assert received == done + queued + in_flight == 10
        assert of(found, "logroute_route_rejected_records_total", route="all") == 1
        assert of(found, "logroute_route_up", route="other") == 1
        # From the beginning, so that the first one shows as an increase.
        assert of(found, "logroute_route_dropped_records_total", route="all", reason="full") == 0
        assert of(found, "logroute_route_lost_gaps_total", route="all", reason="rotated") == 0
        assert of(found, "logroute_source_records_total", source="docker") == 10
        assert of(found, "logroute_route_delivery_seconds_count", route="all") >= 1
        assert of(found, "logroute_route_delivered_bytes_total", route="all") >= 0
        assert found["process_resident_memory_bytes", ()] > 0


class CutStatistics(SinkStatistics, frozen=True):
    events: ClassVar[tuple[str, ...]] = ("connections", "truncated")
    connections: int
    truncated: int


class CuttingSink(StandInSink):
    """Cuts every record, and counts that."""

    def statistics(self) -> CutStatistics:
        return CutStatistics(1, len(self.got))


async def test_what_a_sink_counts_is_shown_with_the_books_of_its_route(address: Address) -> None:
    """That records were cut stood in the log only."""
    sinks = {"cuts": CuttingSink, "all": StandInSink}
    async with daemon_with(None, sinks, range(1, 8), address=address) as daemon, client_of(address) as client:
        await until(lambda: all(r.statistics().delivered == 7 for r in daemon.router.routes.values()))
        found = samples((await scraped(address))[0])
        assert of(found, "logroute_route_sink_events_total", route="cuts", event="truncated") == 7
        assert of(found, "logroute_route_sink_events_total", route="cuts", event="connections") == 1
        routes = (await client.get("/v1/stats")).json()["routes"]
        assert routes["cuts"]["sink"] == {"connections": 1, "truncated": 7}
        assert "sink" not in routes["all"]
        status = (await client.get("/v1/routes/cuts")).json()["status"]
        assert status["sink"] == {"connections": 1, "truncated": 7}


async def test_openmetrics_is_given_to_those_who_ask(address: Address) -> None:
    async with daemon_with(None, {"all": StandInSink}, [1], address=address):
        text, kind = await scraped(address, accept="application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert {family.name for family in parse_openmetrics(text)} >= {"logroute_build", "logroute_route_up"}


async def test_what_a_processor_counts_has_its_own_name(address: Address) -> None:
    plans = [
        counting(labels={"who": "container.name"}),
        counting(name="sizes", kind="histogram", value="message", buckets=[2, 5]),
    ]
    async with daemon_with(
        None, {"all": StandInSink}, range(1, 8), address=address, processors=plans
    ) as daemon:
        await until(lambda: daemon.router.routes["all"].statistics().delivered == 7)
        found = samples((await scraped(address))[0])
        assert of(found, "said_total", who="web") == 7
        assert of(found, "sizes_bucket", le="2.0") == 2
        assert of(found, "sizes_bucket", le="+Inf") == 7
        assert of(found, "sizes_sum") == 28


@pytest.mark.parametrize("name", ["logroute_route_up", "process_x"])
def test_our_own_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"logroute's own"):
        MetricsOptions.model_validate({"name": name})


async def families(address: Address) -> set[str]:
    """Names as queries have them, all there are."""
    async with daemon_with(None, {"all": StandInSink}, [1], address=address):
        text, _ = await scraped(address)
    found = set()
    for line in text.splitlines():
        if line.startswith("# TYPE logroute_"):
            _, _, name, _ = line.split()
            found.add(name)
    return found


def documented() -> dict[str, set[str]]:
    """Labels by name."""
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(logroute_[a-z_]+)` \| \w+ \|([^|]*)\|", text, re.MULTILINE)
    return {name: set(re.findall("`([a-z]+)`", labels)) for name, labels in rows}


async def test_the_docs_list_all_of_them_and_no_others(address: Address) -> None:
    assert set(documented()) == await families(address)


async def test_labels_are_those_of_the_docs_and_no_container_makes_a_series(address: Address) -> None:
    """There are as many series as the configuration has routes, sources and processors."""
    plan = counting(name="mine")
    sinks = {"all": picky(3), "cuts": CuttingSink}
    async with daemon_with(None, sinks, range(1, 8), address=address, processors=[plan]) as daemon:
        await until(lambda: daemon.router.routes["cuts"].statistics().delivered == 7)
        text, _ = await scraped(address)
    seen: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = re.sub("_(bucket|sum|count|created)$", "", sample.name)
            seen.setdefault(name, set()).update(sample.labels.keys() - {"le"})
            assert "web" not in sample.labels.values()
    labels = documented()
    assert {name: seen[name] for name in labels if name in seen} == {
        name: labels[name] for name in labels if name in seen
    }
    assert labels.keys() - seen.keys() <= {"logroute_source_errors_total"}  # nothing went wrong


@pytest.mark.parametrize("file", ["prometheus/alerts.yaml", "grafana/logroute.json"])
async def test_alerts_and_dashboard_name_only_what_there_is(address: Address, file: str) -> None:
    from ruamel.yaml import YAML

    text = (ROOT / "deploy" / file).read_text()
    if file.endswith(".json"):
        board = msgspec.json.decode(text)
        expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        asked = [each["query"] for each in board["templating"]["list"] if each["type"] == "query"]
        assert asked == ["label_values(logroute_route_up, route)"]
        expressions += asked
    else:
        rules = YAML(typ="safe").load(text)["groups"][0]["rules"]
        expressions = [rule["expr"] for rule in rules]
        assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    named = {name for expression in expressions for name in NAME.findall(expression)}
    there = await families(address)
    there |= {name + end for name in there for end in ("_bucket", "_sum", "_count")}
    assert named
    assert named <= there
    labels = documented()
    for expression in expressions:
        for name, chosen in re.findall(r"(logroute_[a-z_]+)\{([^}]*)\}", expression):
            known = labels.get(name) or labels[re.sub("_(bucket|sum|count)$", "", name)]
            assert set(re.findall(r"([a-z]+)\s*[=!]", chosen)) <= known, expression
