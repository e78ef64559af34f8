"""A Docker engine that is not there: its API, its json-file logs, its containers, with a real one's quirks.

It serves the tests, the benchmarks and ``logroute demo``. Containers are driven from Python
(``container.write(b"hello\\n")``); everything else sees a socket that speaks the Engine API and log files in
the real layout.
"""

from logroute.simulator.containers import NotRunning, SimulatedContainer
from logroute.simulator.engine import SimulatedEngine
from logroute.simulator.quirks import DOCKER_20_10, DOCKER_26_1, NEWEST, Quirks

__all__ = [
    "DOCKER_20_10",
    "DOCKER_26_1",
    "NEWEST",
    "NotRunning",
    "Quirks",
    "SimulatedContainer",
    "SimulatedEngine",
]
