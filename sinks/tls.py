"""TLS to receivers: the options that every sink with TLS has, and the context that they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from pydantic import Field, model_validator

from logroute.config.components import Options
from logroute.sinks import Retryable

if TYPE_CHECKING:
    import ssl  # OpenSSL is loaded where TLS is spoken


class TlsOptions(Options):
    """How the receiver is checked, and how we identify ourselves to it."""

    ca: str | None = Field(default=None, examples=["/etc/logroute/ca.pem"])
    """File with the authorities that may have signed the receiver's certificate; default: the system's."""
    cert: str | None = Field(default=None, examples=["/etc/logroute/client.pem"])
    """File with our own certificate, and whatever stands between it and its authority."""
    key: str | None = Field(default=None, examples=["/etc/logroute/client.key"])
    """File with the key of `cert`, not encrypted; default: it stands in `cert`."""
    verify: bool = True
    """Whether the receiver's certificate and host name are checked. Without, anybody may be the receiver."""

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> TlsOptions:
        if self.key and not self.cert:
            raise ValueError("`key` needs the `cert` that it belongs to")
        return self


async def client_context(options: TlsOptions) -> ssl.SSLContext:
    """The context of a client. Reads the files anew, in a thread. Raises Retryable: files get put right."""
    return await trio.to_thread.run_sync(_client_context, options, abandon_on_cancel=True)


def _client_context(options: TlsOptions) -> ssl.SSLContext:
    import ssl

    what = f"the TLS authorities {options.ca}"
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if not options.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.cert:
            what = f"the TLS certificate {options.cert} with the key {options.key or options.cert}"
            # Without a password of our own, an encrypted key would be asked for on the terminal.
            context.load_cert_chain(options.cert, options.key, password="")
    except (OSError, ssl.SSLError) as error:
        raise Retryable(f"cannot use {what}: {error.strerror or error}") from error
    return context
