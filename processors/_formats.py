"""The lines of programs that many people run: patterns by name, and what is found in them.

Patterns are possessive wherever something may be long, so that no line takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from logroute.processors._access import Columns, combined

_QUOTED = r'(?:[^"\\]++|\\.)*+'


class Shape(NamedTuple):
    """One kind of line. Groups are fields; `time`, `severity` and `message` are the record's.

    `time` may be missing altogether: then it is the engine's.
    """

    pattern: str
    layouts: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    levels: Mapping[str, str] = {}
    """What `severity` means, where that is no usual name."""
    many: Callable[[Sequence[str]], tuple[Sequence[int], Columns] | None] | None = None
    """Reads many lines at once, those of the usual form: which they are, and what each group would have."""


_REQUEST = (
    r'"(?:(?P<method>[A-Z]++) (?P<path>(?:[^" \\]++|\\.)++)(?: (?P<protocol>HTTP/[\d.]++))?|'
    rf'(?P<request>{_QUOTED}))"'
)
_CLF = "%d/%b/%Y:%H:%M:%S %z"
_ACCESS = Shape(
    r"(?:(?P<host>[\w.-]++:\d++) )?+(?P<client>\S++) \S++ (?P<user>\S++) "
    rf"\[(?P<time>[^\]]{{1,40}}+)\] {_REQUEST}"
    rf' (?P<status>\d{{3}}) (?P<bytes>\d++|-)(?: "(?P<referrer>{_QUOTED})" "(?P<user_agent>{_QUOTED})")?+',
    (_CLF,),
    ("status", "bytes"),
    many=combined,
)
"""https://nginx.org/en/docs/http/ngx_http_log_module.html,
https://httpd.apache.org/docs/2.4/logs.html#accesslog: the common and the combined format, for apache also
with the virtual host before it. What comes behind is left."""

_NGINX_ERROR = Shape(
    r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<severity>[a-z]++)\] (?P<pid>\d++)#(?P<tid>\d++): "
    r"(?:\*(?P<connection>\d++) )?(?P<message>.*+)",
    ("%Y/%m/%d %H:%M:%S",),
    ("pid", "tid", "connection"),
)
_APACHE_ERROR = Shape(
    r"\[(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:.]++ \d{4})\] "
    r"\[(?:(?P<module>[\w-]*+):)?(?P<severity>[a-z0-9]++)\](?: \[pid (?P<pid>\d++)(?::tid (?P<tid>\d++))?\])?"
    r"(?: \[client (?P<client>[^\]]++)\])? (?P<message>.*+)",
    ("%a %b %d %H:%M:%S.%f %Y",),
    ("pid", "tid"),
)
"""https://httpd.apache.org/docs/2.4/logs.html#errorlog"""

_HAPROXY = (
    # As it is sent to a syslog server: RFC 5424's header or RFC 3164's, or what `format short` leaves of it.
    r"(?:<(?P<priority>\d{1,3})>)?+(?:1 (?:\S++ ){5}+- |"
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?:(?!haproxy\[)\S++ )?+(?=haproxy\[))?+"
    r"(?:haproxy\[\d++\]: )?+(?P<client>\S+?):(?P<client_port>\d++) \[(?P<time>[^\]]{1,40}+)\] "
    r"(?P<frontend>\S++) (?P<backend>[^\s/]++)/(?P<server>\S++) "
)
_HAPROXY_TIME = "%d/%b/%Y:%H:%M:%S.%f"
_HAPROXY_HTTP = Shape(
    _HAPROXY
    + r"(?P<request_ms>-?\d++)/(?P<queue_ms>-?\d++)/(?P<connect_ms>-?\d++)/(?P<response_ms>-?\d++)/\+?"
    r"(?P<total_ms>\d++) (?P<status>-?\d++) \+?(?P<bytes>\d++) \S++ \S++ (?P<termination>\S{4}) "
    r"(?P<connections>\d++)/\d++/\d++/\d++/\+?(?P<retries>\d++) \d++/\d++ (?:\{[^}]*+\} ){0,2}" + _REQUEST,
    (_HAPROXY_TIME,),
    (
        *(
            "client_port",
            "request_ms",
            "queue_ms",
            "connect_ms",
            "response_ms",
            "total_ms",
            "status",
            "bytes",
        ),
        *("connections", "retries"),
    ),
)
"""https://docs.haproxy.org/2.8/configuration.html#8.2.3; the TCP format: #8.2.2"""
_HAPROXY_TCP = Shape(
    _HAPROXY + r"(?P<queue_ms>-?\d++)/(?P<connect_ms>-?\d++)/\+?(?P<total_ms>\d++) \+?(?P<bytes>\d++) "
    r"(?P<termination>\S{2}) (?P<connections>\d++)/\d++/\d++/\d++/\+?(?P<retries>\d++) \d++/\d++",
    (_HAPROXY_TIME,),
    ("client_port", "queue_ms", "connect_ms", "total_ms", "bytes", "connections", "retries"),
)
_HAPROXY_OWN = Shape(
    r"\[(?P<severity>[A-Z]++)\] {1,5}+(?:\d{3,4}/\d{6} )?+\((?P<pid>\d++)\) : (?P<message>.*+)",
    (),
    ("pid",),
    levels={"DIAG": "debug"},
)
"""What it says of itself on stderr: `print_message` of
https://github.com/haproxy/haproxy/blob/master/src/errors.c; before 2.4 with the day of the year and the
time, in no zone that is known."""

_POSTGRES = Shape(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? [A-Za-z+\-\d]{1,6}+) \[(?P<pid>\d++)\] "
    r"(?:(?P<user>[^\s@]++)@(?P<database>\S++) )?+(?P<severity>[A-Z]++\d?):  ?(?P<message>.*+)",
    ("%Y-%m-%d %H:%M:%S.%f %Z", "%Y-%m-%d %H:%M:%S.%f %z"),
    ("pid",),
)
"""`log_line_prefix` as it comes, `%m [%p] `, or that of Debian, `%m [%p] %q%u@%d `.
https://www.postgresql.org/docs/17/runtime-config-logging.html"""

_REDIS = Shape(
    r"(?P<pid>\d++):(?P<role>[A-Z]) (?P<time>\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d{3}) "
    r"(?P<severity>[-.*#]) (?P<message>.*+)",
    ("%d %b %Y %H:%M:%S.%f",),
    ("pid",),
    levels={".": "debug", "-": "info", "*": "notice", "#": "warn"},
)
"""`serverLogRaw` of https://github.com/redis/redis/blob/7.2/src/server.c: debug, verbose, notice, warning."""

_KLOG = Shape(
    r"(?P<severity>[IWEF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d{6}) ++(?P<thread>\d++) "
    r"(?P<file>[^:\s]++):(?P<line>\d++)\] (?P<message>.*+)",
    ("%m%d %H:%M:%S.%f",),
    ("thread", "line"),
    levels={"I": "info", "W": "warn", "E": "error", "F": "fatal"},
)
"""https://github.com/kubernetes/klog/blob/main/internal/buffer/buffer.go:
`Lmmdd hh:mm:ss.uuuuuu threadid file:line] `"""

_SYSLOG_5424 = Shape(
    r"<(?P<priority>\d{1,3})>1 (?P<time>\S{1,40}) (?P<hostname>\S++) (?P<program>\S++) (?P<pid>\S++) "
    r'(?P<message_id>\S++) (?:-|(?P<structured_data>(?:\[[^\]"]++(?:"' + _QUOTED + r'"[^\]"]*+)*+\])++))'
    r"(?: \ufeff?(?P<message>.*+))?",
    ("iso",),
)
_SYSLOG_PROGRAM = r" (?P<hostname>\S++) (?P<program>[^\s\[:]++)(?:\[(?P<pid>[^\]]++)\])?: ?(?P<message>.*+)"
_SYSLOG_3164 = Shape(
    r"(?:<(?P<priority>\d{1,3})>)?+(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)" + _SYSLOG_PROGRAM,
    ("%b %d %H:%M:%S",),
)
_SYSLOG_ISO = Shape(
    r"(?:<(?P<priority>\d{1,3})>)?+(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))"
    + _SYSLOG_PROGRAM,
    ("iso",),
)
"""RFC 5424, section 6; RFC 3164, section 4.1; rsyslog's RSYSLOG_FileFormat, which Debian has since 12, and
RSYSLOG_ForwardFormat (https://www.rsyslog.com/doc/configuration/templates.html)."""

FORMATS: Mapping[str, tuple[Shape, ...]] = {
    "nginx": (_ACCESS, _NGINX_ERROR),
    "apache": (_ACCESS, _APACHE_ERROR),
    "haproxy": (_HAPROXY_HTTP, _HAPROXY_TCP, _HAPROXY_OWN),
    "postgres": (_POSTGRES,),
    "redis": (_REDIS,),
    "klog": (_KLOG,),
    "syslog": (_SYSLOG_5424, _SYSLOG_3164, _SYSLOG_ISO),
}

_SEVERITIES = ("fatal", "fatal", "fatal", "error", "warn", "notice", "info", "debug")
"""RFC 5424, table 2: what 0 to 7 mean."""
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock"),
    *(f"local{number}" for number in range(8)),
)
"""RFC 5424, table 1, by the names that syslog(3) has."""


def priority(found: dict[str, Any]) -> str | None:
    """Take syslog's priority apart: the facility becomes a field, the severity is the level."""
    number = int(found.pop("priority"))
    if number >= 8 * len(_FACILITIES):
        found["priority"] = number
        return None
    found["facility"] = _FACILITIES[number >> 3]
    return _SEVERITIES[number & 7]


def compiled(shape: Shape) -> re.Pattern[str]:
    return re.compile(shape.pattern, re.ASCII | re.DOTALL)
