"""Drop source: every file that somebody drops into a folder is one record, in the order of their names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import trio
from pydantic import Field

from logroute.config.components import SOURCES
from logroute.config.types import Duration
from logroute.router.position import BEGINNING, Place, Position, StreamPosition
from logroute.router.record import ALL_STREAMS, Batch, DetailedRecord, Origin, batch_size_bytes
from logroute.router.times import iso_time
from logroute.sources import Checkpoints, Emit, Source, SourceOptions, Start


class DropOptions(SourceOptions):
    """Files in a folder, each a record."""

    type: Literal["drop"] = "drop"
    folder: str = Field(examples=["/var/spool/reports"])
    """Where they appear. A name must be greater than all that were there before."""
    every: Duration = Field(default=1.0, gt=0, examples=["1s"])
    """How often to look."""


def behind(name: str) -> Position:
    """The position behind the file of this name: what a checkpoint holds, and what a restart begins with."""
    return Position(StreamPosition(Place(name, 0))) if name else BEGINNING


def name_before(position: Position) -> str:
    return position.stdout.place.file if position.stdout.place is not None else ""


@SOURCES.register(DropOptions)
class DropSource(Source[DropOptions]):
    async def run(self, emit: Emit, checkpoints: Checkpoints, *, task_status: trio.TaskStatus[None]) -> None:
        folder = Path(self.options.folder)
        origin = Origin(f"drop:{folder}", self.context.name, name=folder.name, file=str(folder))
        met = await checkpoints.meet({origin: Start(created="", position=BEGINNING)})
        done = {route: name_before(position) for route, position in met[origin].items()}
        task_status.started()
        # One reader for all routes: it begins where the one that is furthest behind stands.
        last = min(done.values(), default="")
        while True:
            for path in await trio.to_thread.run_sync(names_after, folder, last):
                record = await trio.to_thread.run_sync(read, path)
                batch = Batch(
                    origin,
                    [record],
                    before=behind(last),
                    after=behind(path.name),
                    size_bytes=batch_size_bytes([record], len(record.message)),
                    acknowledged={route: ALL_STREAMS for route, name in done.items() if name >= path.name},
                )
                while not emit.has_room(origin):
                    await emit.wait_for_room()
                await emit([batch])
                last = path.name
            if self.context.once:
                return
            await trio.sleep(self.options.every)


def names_after(folder: Path, last: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name > last and path.is_file())


def read(path: Path) -> DetailedRecord:
    """The record of a file: the same, id included, however often it is read."""
    time = iso_time(path.stat().st_mtime_ns)
    return DetailedRecord(path.read_text(errors="replace").rstrip("\n"), "stdout", time, place=path.name)
