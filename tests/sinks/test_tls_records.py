"""What has come by TLS is read at once, however many records it came in; without I/O."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trustme

from logroute.sinks.tls_records import WholeReads

ANSWERS = [b"%d rsp 6 200 OK\n" % number for number in range(1000)]


class Pair:
    """A client, and the server that it has shaken hands with."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, clients: bool = False) -> None:
        authority = trustme.CA()
        server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(server)
        authority.configure_trust(client)
        if clients:
            server.verify_mode = ssl.CERT_REQUIRED
        client.maximum_version = version
        client.sslobject_class = WholeReads
        self.to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.to_client, to_server, server_hostname="localhost")
        self.server = server.wrap_bio(to_server, self.to_client, server_side=True)
        for each in (self.client, self.server, self.client):
            with suppress(ssl.SSLWantReadError):
                each.do_handshake()

    def finish(self) -> None:
        """The server's part of the handshake."""
        self.server.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_records_are_read_together(version: ssl.TLSVersion) -> None:
    pair = Pair(version)
    pair.finish()
    for answer in ANSWERS:
        pair.server.write(answer)
    assert pair.client.read(1 << 16) == b"".join(ANSWERS)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.read(1 << 16)


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 50_000])
def test_no_more_is_read_than_was_asked_for(size: int) -> None:
    pair = Pair()
    pair.finish()
    written = b"".join(ANSWERS) + b"x" * 40_000
    for answer in ANSWERS:
        pair.server.write(answer)
    pair.server.write(b"x" * 16_384)
    pair.server.write(b"x" * (40_000 - 16_384))
    for begin in range(0, len(written), size):
        assert pair.client.read(size) == written[begin : begin + size]


def test_a_farewell_behind_data_is_read_next() -> None:
    pair = Pair()
    pair.finish()
    pair.server.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    assert [pair.client.read(1 << 16) for _ in range(3)] == [b"last", b"", b""]


def test_what_fails_behind_data_is_told_to_who_reads_next() -> None:
    pair = Pair()
    pair.finish()
    pair.server.write(b"last")
    pair.to_client.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that nobody has encrypted
    assert pair.client.read(1 << 16) == b"last"
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="DECRYPTION_FAILED_OR_BAD_RECORD_MAC"):
            pair.client.read(1 << 16)


def test_a_certificate_that_is_refused_is_told() -> None:
    pair = Pair(clients=True)
    with pytest.raises(ssl.SSLError):
        pair.finish()
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        pair.client.read(1 << 16)


def test_data_may_go_into_a_buffer() -> None:
    pair = Pair()
    pair.finish()
    pair.server.write(b"last")
    buffer = bytearray(10)
    assert pair.client.read(10, buffer) == 4
    assert bytes(buffer[:4]) == b"last"
