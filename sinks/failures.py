"""What a connection failed of, in words for people: the one cause, out of what libraries put around it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

EXCERPT_CHARACTERS = 200
_LOOKED_AT = 4096
"""How much of a text an excerpt is made of: receivers may say megabytes."""
CERTIFICATE_REFUSED = "the receiver refuses our TLS certificate"
_CERTIFICATE_ALERTS = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
}
"""What OpenSSL calls the alerts that say so (RFC 8446, 6.2): it names those only that have come."""


def cause_in_words(error: BaseException) -> str:
    """What the system, or TLS, said. The least general error of the chain counts."""
    import ssl  # OpenSSL is loaded where TLS is spoken, or something failed

    chain = list(_chain(error))
    for found in chain:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {found.verify_message}"
        if isinstance(found, socket.gaierror):
            return f"its name cannot be resolved: {found.strerror}"
        if isinstance(found, UnicodeError):  # of who encodes names (IDNA)
            return f"its name cannot be one: {excerpt(str(found))}"
        if isinstance(found, ssl.SSLError) and found.reason in _CERTIFICATE_ALERTS:
            return f"{CERTIFICATE_REFUSED} ({found.reason}): set `tls.cert` and `tls.key`"
        if isinstance(found, ssl.SSLError):
            return f"TLS failed: {found.reason or found.strerror or found}"
    for found in chain:
        if isinstance(found, OSError) and found.errno and found.errno in errno.errorcode:
            return f"{os.strerror(found.errno)} ({errno.errorcode[found.errno]})"
    return excerpt(str(error)) or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and whatever it was made of."""
    seen: set[int] = set()
    left = [error]
    while left:
        found = left.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, BaseExceptionGroup):
            left += found.exceptions
        left += [inner for inner in (found.__cause__, found.__context__) if inner is not None]


def excerpt(text: bytes | str) -> str:
    """What a receiver said, harmless and short enough for a line of the log: no controls, no line breaks."""
    text = text[:_LOOKED_AT]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    line = " ".join("".join([c if c.isprintable() else " " for c in text]).split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[:EXCERPT_CHARACTERS] + "…"
