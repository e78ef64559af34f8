"""What differs between engines, as switches of the simulated one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """Behaviour of one engine version. The defaults are those of Docker 20.10, without its accidents."""

    engine_version: str = "20.10.24"
    api_version: str = "1.41"
    min_api: str = "1.12"
    """Older versions in a path are answered with 400. Newest engines: 1.40."""
    since_filters_every_record: bool = True
    """Otherwise `since` only looks for the first record that is not older, as engines from 23 do."""
    rotation_glitch: Literal["none", "skips", "skips and repeats"] = "none"
    """What a follow stream does when the log was rotated more than once since it read.

    Engines from 23 on skip to the newest file; 20.10 also reads that one again for each rotation missed.
    """
    opening_race_s: float = 0.0
    """For how long after a rotation a follow stream is opened on the file that was just renamed: it stands
    still at that file's end, and with the next rotation leaves out the whole file between. (20.10; seen in
    half of the openings of a log that was rotated twice a second.)
    """
    stream_jitter_ns: int = 0
    """How far back the time of a record may lie behind the other stream's; never within one stream.

    In 20.10, 67 of 40,000 records lay back, by up to 6.5 ms.
    """
    stream_jitter_share: float = 0.002
    """Of the records, how many are late by up to `stream_jitter_ns`."""
    tells_read_errors: float = 0.0
    """In what share of readings a log line that cannot be read ends `/logs` with a frame of type 3; otherwise
    they end there without a word. Only 26.1 tells, in half of them, of two goroutines the faster."""
    error_overtakes: float = 0.0
    """In what share of these the records just before it do not come any more (26.1)."""
    renames_single_file: bool = True
    """With `max-file` 1, a full log becomes `.1` all the same, which the API does not read (20.10). Newer
    engines remove it."""
    local_drops_newlines: bool = True
    """The `local` driver gives the last piece of a long line without its newline (20.10)."""
    wording: Literal["20.10", "26.1", "newest"] = "20.10"
    """How refusals are put, and with which status malformed parameters are refused."""
    plain_text_errors: bool = True
    """Clients older than API 1.24 are answered in plain text; 26.1 has JSON for them, the newest has not."""
    multiplexed_content_type: bool = False
    """Engines from API 1.42 on say which of the two forms the body of `/logs` has; to clients that are older
    than that always that it is raw."""
    events_content_type: str = "application/json"
    """Newest engines: `application/jsonl`."""
    legacy_event_keys: bool = True
    """Events also carry `status`, `id` and `from` (gone in API 1.52)."""
    stop_before_die: bool = False
    """Of a container that is stopped, newer engines tell `stop` before `die`."""
    removal_delay_s: float = 0.045
    """From the death of a `--rm` container to its destruction; 409 in between."""
    compression_delay_s: float = 0.0
    """How long a rotated file stays uncompressed; the next rotation waits for it."""
    event_ring: int = 256
    """Events remembered for `since`."""
    event_buffer: int = 1024
    """Events waiting for one subscriber; what comes while it is full is skipped for it."""


DOCKER_20_10 = Quirks(rotation_glitch="skips and repeats", stream_jitter_ns=7_000_000)
DOCKER_26_1 = Quirks(
    engine_version="26.1.5",
    api_version="1.45",
    min_api="1.24",
    since_filters_every_record=False,
    rotation_glitch="skips",
    renames_single_file=False,
    local_drops_newlines=False,
    wording="26.1",
    plain_text_errors=False,
    multiplexed_content_type=True,
    stop_before_die=True,
    stream_jitter_ns=7_000_000,
    tells_read_errors=0.6,
    error_overtakes=0.2,
)
NEWEST = replace(
    DOCKER_26_1,
    engine_version="29.0.0",
    api_version="1.56",
    min_api="1.40",
    wording="newest",
    plain_text_errors=True,
    events_content_type="application/jsonl",
    legacy_event_keys=False,
    tells_read_errors=0.0,
)
