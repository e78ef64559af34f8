"""`logroute run`: from a configuration or URIs to a running daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import msgspec
import structlog
import trio

from logroute.api.address import Address, default_address
from logroute.api.server import ApiServer
from logroute.cli import log, process
from logroute.config.hidden import Hidden
from logroute.config.load import find_config, load_config
from logroute.config.model import Config
from logroute.config.plans import make_plan
from logroute.config.problems import ConfigError, Problem
from logroute.config.yaml_file import forget_parser
from logroute.router.daemon import Daemon
from logroute.router.ending import UNDELIVERED
from logroute.router.plan import CannotReload, Plan
from logroute.router.system import stop_on_signals

USAGE = 2
WATCH_EVERY_S = 1.0
"""How often `--watch` looks at the files; and how long one must have been left alone."""

NOTHING_TO_DO = """\
Where shall the records go? Give a URI or a configuration:

  logroute run file:///tmp/all.ndjson     every container into one file
  logroute run stdout:                    onto this terminal
  logroute run -c logroute.yaml           as the file says
  logroute demo                           see it work first
"""


@click.command("run")
@click.argument("uris", nargs=-1, metavar="[URI]...")
@click.option("-c", "--config", "config_file", metavar="FILE", help="Configuration file.")
@click.option("--state-dir", metavar="DIR", help="Where checkpoints are kept.")
@click.option("--listen", metavar="ADDRESS", help="Where the API is: unix:///PATH or HOST:PORT.")
@click.option("--once", is_flag=True, help="Deliver what is there now, then end.")
@click.option("--watch", is_flag=True, help="Reload when the configuration has changed, as SIGHUP does.")
@click.option("--timeout", default="5m", show_default=True, help="With --once: end after so long in vain.")
@click.option("--log-format", type=click.Choice(["auto", "text", "json"]), default="auto")
@click.option("--log-level", type=click.Choice(log.LEVELS), default="info")
def command(
    uris: tuple[str, ...],
    config_file: str | None,
    state_dir: str | None,
    listen: str | None,
    once: bool,
    watch: bool,
    timeout: str,
    log_format: log.Format,
    log_level: str,
) -> None:
    """Route the logs of containers: each URI is a route that takes everything.

    \b
    logroute run file:///tmp/all.ndjson
    logroute run -c logroute.yaml
    """
    hidden = Hidden()
    log.configure(log_format, log_level, hidden)
    path = find_config(config_file) if config_file or not uris else None
    if path is None and not uris:
        click.echo(NOTHING_TO_DO, err=True, nl=False)
        sys.exit(USAGE)
    watched: list[Path] = []

    def load() -> Plan:
        loaded = load_config(path, uris)
        watched[:] = loaded.files
        config = loaded.config
        directory = state_dir_of(config, state_dir, from_file=path is not None)
        plan = make_plan(config, directory, once, timeout, loaded, hidden)
        if once:
            return plan
        make_api = api_of(config, listen)
        return msgspec.structs.replace(plan, make_api=make_api, api_options=make_api.keywords)

    try:
        plan = load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(USAGE)
    forget_parser()
    reloading = Reloading(load, watched) if path is not None and not once else None
    sys.exit(trio.run(run_plan, plan, reloading, watch))


class Reloading:
    """Reads the configuration again when it is told to, or when a file of it has changed."""

    def __init__(self, load: Callable[[], Plan], files: Sequence[Path]) -> None:
        self._load = load
        self._files = files
        self._log = structlog.get_logger("logroute")

    async def reload(self, daemon: Daemon) -> None:
        """An invalid configuration, or one that cannot be taken over, is reported and changes nothing.

        Nor does anything else that goes wrong here end the daemon: it goes on with what it has.
        """
        try:
            await self.take_over(daemon)
        except ConfigError as error:
            self._log.error("the changed configuration is invalid: nothing has changed", problems=str(error))
        except CannotReload as error:
            self._log.error("the changed configuration is not taken over", reason=str(error))
        except Exception as error:
            self._log.error("the reload failed; the daemon goes on", exc_info=error)

    async def take_over(self, daemon: Daemon) -> None:
        """Raises ConfigError, CannotReload; then nothing has changed."""
        try:
            plan = await trio.to_thread.run_sync(self._load)
            await daemon.reload(plan)
        finally:
            forget_parser()

    async def watch(self, daemon: Daemon) -> None:
        """Reload when a file has changed and was then left alone for a while."""
        known = await trio.to_thread.run_sync(self._stamps)
        while True:
            await trio.sleep(WATCH_EVERY_S)
            now = await trio.to_thread.run_sync(self._stamps)
            if now == known:
                continue
            await trio.sleep(WATCH_EVERY_S)
            if now == await trio.to_thread.run_sync(self._stamps):
                known = now
                await self.reload(daemon)

    def _stamps(self) -> list[tuple[object, ...]]:
        stamps: list[tuple[object, ...]] = []
        # A further file may come into a folder of which files are included.
        for file in (*self._files, *{included.parent for included in self._files[1:]}):
            try:
                status = file.stat()
                stamps.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                stamps.append((str(file),))
        return stamps


async def run_plan(plan: Plan, reloading: Reloading | None = None, watch: bool = False) -> int:
    """Run it until it ends or a signal comes; its exit code."""
    process.tune(ends_soon=plan.once)
    daemon = Daemon(plan)
    if reloading is not None:
        daemon.reload_file = partial(reloading.take_over, daemon)
    async with trio.open_nursery() as nursery:
        reload = partial(reloading.reload, daemon) if reloading is not None else None
        give_up = partial(os._exit, UNDELIVERED)
        await nursery.start(partial(stop_on_signals, daemon, reload, give_up=give_up))
        if reloading is not None and watch:
            nursery.start_soon(reloading.watch, daemon)
        code = await daemon.run()
        nursery.cancel_scope.cancel()
    return code


def state_dir_of(config: Config, given: str | None, *, from_file: bool) -> Path | None:
    """`--state-dir`, else the file's, else its default; None where everything stays in memory."""
    if given:
        return Path(given).absolute()
    if not from_file:
        return None
    if "state_dir" in config.model_fields_set:
        return Path(config.state_dir) if config.state_dir else None
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.partition(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/logroute")
    return Path.home() / ".local/state/logroute"


def api_of(config: Config, given: str | None) -> partial[ApiServer]:
    """The API at `--listen`, else where the file says, else at its default. Raises ConfigError."""
    text = given or config.api.listen
    try:
        address = Address.parse(text) if text else default_address()
    except ValueError as error:
        raise ConfigError([Problem(f"--listen: {error}")]) from error
    token = ""
    if (file := config.api.token_file) is not None:
        try:
            token = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError([Problem(f"cannot read {file}: {why}", path="api.token_file")]) from error
        if not token.isascii() or not token.isprintable() or not token:
            raise ConfigError([Problem(f"{file}: there is no token in it", path="api.token_file")])
    if address is not None and not address.is_local and not token:
        raise ConfigError(
            [
                Problem(
                    f"{address} can be reached by other hosts: give api.token_file, a file with a token that "
                    "whoever asks must know; or listen on 127.0.0.1, or on a unix socket",
                    path="" if given else "api.listen",
                )
            ]
        )
    return partial(ApiServer, address=address, token=token, required=bool(text))
