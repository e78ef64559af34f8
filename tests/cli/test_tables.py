"""Tables on a terminal."""

from __future__ import annotations

from logroute.api.containers import ContainerFacts, RouteOfContainer
from logroute.cli.columns import cells
from logroute.cli.ps import lines
from logroute.cli.tables import aligned, cut


def test_columns_stand_below_each_other_where_names_are_wide() -> None:
    lines = aligned(["NAME", "N", "READ"], [["web", "1", "file"], ["日本", "10", "api"]], right=[1])
    assert lines == ["NAME   N  READ", "web    1  file", "日本  10  api"]


def test_what_is_cut_takes_no_more_columns_than_there_are() -> None:
    assert [cut("日本語", width) for width in (6, 5, 4)] == ["日本語", "日本…", "日…"]
    assert cells(cut("e\u0301" * 10, 5)) == 5


def test_a_long_name_pushes_nothing_out_of_sight() -> None:
    name = "日本" * 20 + "-1"
    web, long = (ContainerFacts(each, "docker", "running", "file") for each in ("web", name))
    seen = lines([web, long], "2026-11-23T20:06:26.000000000Z", 40)
    assert all(cells(line) <= 40 for line in seen)
    assert "READ" in seen[0]
    assert "-1" in seen[2]


def test_routes_whose_names_are_wide_are_counted_where_they_do_not_fit() -> None:
    taken = {name * 4: RouteOfContainer(True, "null") for name in ("日本", "東京", "大阪")}
    facts = ContainerFacts("web", "docker", "running", "file", routes=taken)
    for width in (60, 70, 80):
        row = lines([facts], "2026-11-23T20:06:26.000000000Z", width)[1]
        assert cells(row) <= width
        assert "…" not in row
        assert row.endswith(("+1", "+2", "3 routes"))
