"""`python -m tests.oracle`: run the oracle, as `make soak SEED= MINUTES=` does."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import trio

from tests.oracle import disks
from tests.oracle.faults import SORTS
from tests.oracle.history import Violation
from tests.oracle.run import ROUTES, Oracle, Order

HAS_OWN_MOUNTS = "LOGROUTE_ORACLE_HAS_OWN_MOUNTS"
SHOWN = 30


def _named(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Reads names separated by commas, all of them known; none is all, a `-` before them all but these."""

    def read(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
        named = [name for name in text.removeprefix("-").split(",") if name]
        if unknown := [name for name in named if name not in known]:
            raise click.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        leave_out = text.startswith("-") or not named
        return tuple(name for name in known if (name in named) != leave_out)

    return read


@click.command(epilog="\b\nFaults:\n" + "\n".join(f"  {name:19}{sort.what}" for name, sort in SORTS.items()))
@click.option("--seed", type=int, help="What faults come when; default is one of chance.")
@click.option("--minutes", type=float, default=1.0, show_default=True, help="How long they go on.")
@click.option("--faults", default="", callback=_named(tuple(SORTS)), help="Which; -A,B is all but these.")
@click.option("--routes", default="", callback=_named(ROUTES), help=f"Which of {', '.join(ROUTES)}.")
@click.option("--rate", type=float, default=150.0, show_default=True, help="Records written a second.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to work; default is a temporary folder."
)
@click.option("--keep", is_flag=True, help="Keep the folder also when all is well.")
def main(
    seed: int | None,
    minutes: float,
    faults: tuple[str, ...],
    routes: tuple[str, ...],
    rate: float,
    folder: Path | None,
    keep: bool,
) -> None:
    """Hurt a daemon in every way there is, and see whether it keeps its promises.

    Exits with 1 where it does not; the same seed draws the same faults again.
    """
    if disks.unavailable() is None and HAS_OWN_MOUNTS not in os.environ:
        # Whatever becomes of us, what we mount goes with us.
        command = [*disks.OWN_MOUNTS, sys.executable, "-m", "tests.oracle", *sys.argv[1:]]
        os.execvpe(command[0], command, {**os.environ, HAS_OWN_MOUNTS: "1"})
    seed = secrets.randbelow(10**6) if seed is None else seed
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="oracle-"))
    elif folder.exists():
        raise click.UsageError(f"{folder} is there already: name a folder that is not")
    else:
        folder.mkdir(parents=True)
    repeat = f"--seed {seed} --minutes {minutes:g} --rate {rate:g} --faults {','.join(faults)}"
    repeat += f" --routes {','.join(routes)}"
    click.echo(f"python -m tests.oracle {repeat}")
    oracle = Oracle(Order(seed, minutes * 60, faults, routes, rate, folder.resolve()), click.echo)
    violations = trio.run(_unless_interrupted, oracle)
    if violations is None:
        click.echo(f"interrupted; what there is lies in {folder}")
        sys.exit(1)
    click.echo(oracle.summary())
    if not violations:
        if not keep:
            shutil.rmtree(folder)
        return
    click.echo(f"\n{len(violations)} violations:")
    for violation in violations[:SHOWN]:
        click.echo(f"  {violation}")
    if len(violations) > SHOWN:
        click.echo(f"  … and {len(violations) - SHOWN} more")
    click.echo(f"\nThe daemon's log is {oracle.daemon.log}. Repeat with:\npython -m tests.oracle {repeat}")
    sys.exit(1)


async def _unless_interrupted(oracle: Oracle) -> list[Violation] | None:
    """What a run finds; None where it was told to end. Either way no process and no disk is left behind."""
    found: list[Violation] | None = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def end_on_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(end_on_signal)
            found = await oracle.run()
            nursery.cancel_scope.cancel()
    return found


if __name__ == "__main__":
    main()
