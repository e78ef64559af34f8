"""The floor: read a json-file log in chunks of a megabyte and decode them, nothing else."""

from __future__ import annotations

import sys

import msgspec


class Line(msgspec.Struct, gc=False):
    log: str
    stream: str
    time: str


def main() -> None:
    decode_lines = msgspec.json.Decoder(Line).decode_lines
    rest = b""
    count = 0
    with open(sys.argv[1], "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            data = rest + chunk
            end = data.rfind(b"\n") + 1
            count += len(decode_lines(data[:end]))
            rest = data[end:]
    print(count)


if __name__ == "__main__":
    main()
