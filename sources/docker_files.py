"""Logs that a docker source reads as files: which containers have one that can be, and opening it.

`auto` takes a file only if it is the log that the engine has. What cannot be had as a file is read by API.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Literal

import structlog
import trio

from logroute.router.record import Record
from logroute.sources import SourceContext
from logroute.sources.docker_container import Container
from logroute.sources.engine import Engine, EngineError, EngineRefused, share
from logroute.sources.engine_answers import ContainerDetails
from logroute.sources.log_file import LogFile
from logroute.sources.sweep import Sweep

# Drivers whose file is json-file's; `local` files are not read yet, the API can.
FILE_DRIVERS = ("json-file",)
FIRST_BYTES = 4 << 10
"""How much of the engine's answer is read at a time, until it holds a log's first record."""

ENOUGH = 8
"""So many logs of a folder are the engine's: then all are."""


class ContainerFiles:
    """Opens the logs of containers. Owns those that are only expected; the others are their containers'."""

    def __init__(
        self,
        engine: Engine,
        sweep: Sweep,
        context: SourceContext,
        read: Literal["auto", "file", "api"],
        threads: trio.CapacityLimiter,
    ) -> None:
        self.root = ""
        """The engine's folder, for engines that do not tell where logs are."""
        self._engine = engine
        self._sweep = sweep
        self._context = context
        self._read = read
        self._threads = threads
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)
        self._expected: dict[str, LogFile] = {}
        """Logs of containers that were created and not started yet, by container."""
        self._compared: dict[str, float] = {}
        """How many logs of a folder were the engine's; less than none where one was not."""
        self._unreadable: dict[str, int] = {}
        """How often what was the reason not to read a file."""

    @property
    def expected(self) -> Sequence[LogFile]:
        """Those that may be open before their containers have begun."""
        return list(self._expected.values())

    def _log_file(self, container: Container) -> LogFile | None:
        """Its log as a file, not open; None if it is not to be read as one."""
        details = container.details
        if self._read == "api" or details.log_driver not in FILE_DRIVERS:
            return None
        path = details.log_path
        if not path and self.root:
            path = f"{self.root}/containers/{details.id}/{details.id}-json.log"
        return LogFile(path, container.origin, limit=self._context.record_limit_bytes) if path else None

    async def expect(self, container: Container) -> None:
        """It was created: its log is opened as soon as it is there.

        One that removes itself at its end (`--rm`) may be gone with its log before its start event has come
        and been answered.
        """
        log = self._log_file(container)
        if log is not None and not self._context.once:
            self._expected[container.details.id] = log
            self._sweep.folders.expect(log)
            # It may have been started meanwhile.
            await trio.to_thread.run_sync(log.open_once, limiter=self._threads, abandon_on_cancel=True)

    def expect_no_more(self, id_: str) -> None:
        """The container is gone, or will not be read."""
        if (log := self._expected_log(id_)) is not None:
            self._sweep.close(log)

    def _expected_log(self, id_: str) -> LogFile | None:
        log = self._expected.pop(id_, None)
        if log is not None:
            self._sweep.folders.expect_no_more(log)
        return log

    async def open(self, containers: Sequence[Container]) -> None:
        """Open the files of those that are to be read as such. Leaves `log` None where one is read by API.

        One hop to a thread for all of them: there may be thousands when the daemon starts.
        """
        logs: dict[Container, LogFile] = {}
        for container in containers:
            log = self._expected_log(container.details.id)
            if log is None or not log.is_open:
                log = self._log_file(container)
            if log is not None:
                log.origin = container.origin
                logs[container] = log
        problems = await trio.to_thread.run_sync(
            _open_files, logs, limiter=self._threads, abandon_on_cancel=True
        )
        for container, why in problems.items():
            if why or self._read == "file":
                self._say_unreadable(container, logs[container].path, why or "no such file")
            del logs[container]
        if self._read == "auto":
            try:
                strange = await self._strange(logs)
            except EngineError:
                for log in logs.values():
                    self._sweep.close(log)
                raise
            for container in strange:
                log = logs.pop(container)
                self._sweep.close(log)
                self._say_unreadable(container, log.path, "it is not the log that the engine has")
        for container, log in logs.items():
            log.complete = container.ended
            container.log = log

    def _say_unreadable(self, container: Container, path: str, why: str) -> None:
        """Once for each reason, where it is the user's wish that the API is the other way."""
        self._unreadable[why] = self._unreadable.get(why, 0) + 1
        again = self._read == "auto" and self._unreadable[why] > 1
        self._log.log(
            logging.DEBUG if again else logging.WARNING,
            "cannot read the log file, reading by API instead",
            container=container.origin.name,
            path=path,
            why=why,
            hint="others with the same reason are not named" if self._read == "auto" else None,
        )

    async def _strange(self, logs: Mapping[Container, LogFile]) -> list[Container]:
        """Those whose file is not the log that the engine has: in a container a path may be another file.

        Of a folder in which some were the engine's, and none was not, no others are compared: that would be a
        request for each container of a host.
        """
        strange: list[Container] = []

        async def compare(container: Container) -> None:
            log = logs[container]
            its = await self._is_its_log(container, log)
            if its is None:
                return
            root = _root(log)
            if its:
                self._compared[root] = self._compared.get(root, 0) + 1
            else:
                self._compared[root] = -math.inf
                strange.append(container)

        by_root: dict[str, list[Container]] = {}
        for container, log in logs.items():
            by_root.setdefault(_root(log), []).append(container)
        for root, rest in by_root.items():
            while rest and self._compared.get(root, 0) < ENOUGH:
                await share(compare, rest[:ENOUGH])
                del rest[:ENOUGH]
        return strange

    async def _is_its_log(self, container: Container, log: LogFile) -> bool | None:
        """Whether the file's first record is the engine's; None where that cannot be told."""
        try:
            ours = await trio.to_thread.run_sync(
                log.first_record, limiter=self._threads, abandon_on_cancel=True
            )
        except OSError:
            return None  # whoever reads it says so
        if ours is None:
            return None  # empty as yet; its path holds the container's whole id
        try:
            theirs = await self.oldest(container.details)
        except EngineRefused:
            return None  # removed meanwhile, or not readable by API at all: the file is what there is
        if theirs is None:
            return False
        # The engine rotates under our eyes: what it has now may begin later than what we hold.
        return ours.time <= theirs.time and (ours.time != theirs.time or ours.stream == theirs.stream)

    async def oldest(self, details: ContainerDetails) -> Record | None:
        """The oldest record that the engine has; None if it has none."""
        from logroute.sources.frames import FrameDecoder, TerminalDecoder

        limit = self._context.record_limit_bytes
        decoder = TerminalDecoder(limit) if details.tty else FrameDecoder(limit)
        async with self._engine.logs(details.id, follow=False) as stream:
            while data := await stream.receive(FIRST_BYTES):
                if records := decoder.feed(data):
                    return records[0]
        return next(iter(decoder.finish()), None)


def _root(log: LogFile) -> str:
    """The folder in which each container of an engine has one."""
    return os.path.dirname(os.path.dirname(log.path))


def _open_files(logs: Mapping[Container, LogFile]) -> dict[Container, str]:
    """Open those that are not. Why some cannot be: empty where there is no such file. In a worker thread."""
    problems: dict[Container, str] = {}
    for container, log in logs.items():
        try:
            if not log.is_open and not log.open():
                problems[container] = ""
        except PermissionError:
            problems[container] = "no permission"
        except OSError as error:
            problems[container] = error.strerror or str(error)
    return problems
