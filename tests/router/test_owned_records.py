"""Records, and who may change them."""

from __future__ import annotations

import pytest

from logroute.router.record import DetailedRecord, Record, detailed, owned_records


@pytest.mark.parametrize("others", [0, 1])
def test_records_of_ones_own_change_nobody_elses(others: int) -> None:
    plain = Record("m", "stdout", "2026-11-23T20:06:26.000000001Z")
    rich = DetailedRecord("n", "stderr", plain.time, level="info", fields={"a": 1}, truncated=True)
    given = [plain, rich][: 1 + others]
    own = owned_records(given)
    assert own == [detailed(record) for record in given]
    for record in own:
        assert isinstance(record, DetailedRecord)
        record.message, record.fields = "changed", (record.fields or {}) | {"b": 2}
    assert (plain.message, rich.message, rich.fields) == ("m", "n", {"a": 1})


def test_the_fields_of_records_of_ones_own_are_copies_unless_nobody_else_has_them() -> None:
    rich = DetailedRecord("n", "stderr", "2026-11-23T20:06:26.000000001Z", fields={"a": 1})
    [copied] = owned_records([rich])
    assert copied.fields is not None
    copied.fields["b"] = 2
    assert rich.fields == {"a": 1}
    assert owned_records([rich], copied=False)[0] is rich
