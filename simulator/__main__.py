"""``python -m logroute.simulator``: the simulated engine as a process, with chattering containers.

Its first line on stdout is the address to give as DOCKER_HOST; SIGTERM or SIGINT ends it.
"""

from __future__ import annotations

import signal
from pathlib import Path

import click
import trio

from logroute.simulator.chatter import chat, populate
from logroute.simulator.engine import SimulatedEngine


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, resolve_path=True),
    required=True,
    help="Folder for its socket and logs.",
)
@click.option("--containers", "count", default=4, show_default=True, help="How many containers talk.")
@click.option(
    "--rate", default=20.0, show_default=True, help="Lines a second, all together; 0 is at full speed."
)
@click.option("--lines", type=int, help="Exit the containers after so many lines; default is never.")
@click.option("--max-size", help="Rotate logs at this size, as json-file's max-size.")
@click.option("--max-file", default=3, show_default=True, help="Files kept with --max-size.")
@click.option("--tcp", is_flag=True, help="Listen on loopback too.")
@click.option("--seed", type=int, help="The same numbers make the same text.")
def main(
    root: Path,
    count: int,
    rate: float,
    lines: int | None,
    max_size: str | None,
    max_file: int,
    tcp: bool,
    seed: int | None,
) -> None:
    """Run a simulated Docker engine with chattering containers."""
    log_opts = {"max-size": max_size, "max-file": str(max_file)} if max_size else {}

    async def run() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with (
                SimulatedEngine(root, tcp=tcp, seed=seed) as engine,
                trio.open_nursery() as nursery,
            ):
                click.echo(engine.host)
                if tcp:
                    click.echo(engine.tcp_host)
                talks = populate(engine, count, log_opts=log_opts)

                async def talk() -> None:
                    said = await chat(talks, rate=rate, total=lines, seed=seed or 0)
                    for each in talks:
                        each.container.exit(0)
                    click.echo(f"{said} lines were said, the containers exited")

                nursery.start_soon(talk)
                async for _ in signals:
                    nursery.cancel_scope.cancel()

    trio.run(run)


if __name__ == "__main__":
    main()
