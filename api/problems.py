"""Problems: what is wrong with a request, as RFC 9457 has it (`application/problem+json`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

import msgspec

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """Answered as a problem: `detail` says what is wrong and what to do, `path` where in the body."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        path: str = "",
        headers: dict[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ):
        """`errors`: where there are several, the path and the text of each."""
        super().__init__(detail)
        self.errors = errors
        self.status = status
        self.path = path
        self.headers = headers or {}

    def body(self, hide: Callable[[str], str] = str) -> bytes:
        """`type` is left out: `about:blank`, so that `title` is the status's own (RFC 9457, 4.2.1).

        `hide` takes out of a text what nobody shall be shown.
        """
        problem: dict[str, object] = {
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": hide(str(self)),
        }
        if self.path:
            problem["path"] = self.path
        if self.errors:
            problem["errors"] = [{"path": path, "detail": hide(text)} for path, text in self.errors]
        return msgspec.json.encode(problem)
