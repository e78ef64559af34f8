"""TLS that is read as far as it has come, and not one record of it at a time.

Some receivers put each answer into a record of its own (rsyslog by RELP): a wake-up for each costs several
times what sending its message did. Imported only where TLS is spoken.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGEST_BYTES = 1 << 14
"""What a record can hold (RFC 8446, 5.1)."""


class WholeReads(ssl.SSLObject):
    """Reads all records that have come: for `SSLContext.sslobject_class`."""

    _failure: ssl.SSLError | None = None
    """What stood behind data that was read: said to who reads next."""

    def read(self, size: int = 1024, buffer: Buffer | None = None) -> bytes:
        if self._failure is not None:
            raise self._failure
        data = super().read(size, buffer)
        if buffer is not None:
            return data
        parts: list[bytes] = []
        try:
            while data:
                parts.append(data)
                size -= len(data)
                data = super().read(min(size, LARGEST_BYTES)) if size > 0 else b""
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._failure = error
        return b"".join(parts)
