"""Keep slow queries only, and say which of them are far too slow."""

from logroute.router.record import DetailedRecord


def slow_queries(records: list[DetailedRecord]) -> list[DetailedRecord]:
    slow = [record for record in records if (record.fields or {}).get("seconds", 0) >= 1]
    for record in slow:
        if record.fields and record.fields["seconds"] >= 10:
            record.level = "error"
    return slow
