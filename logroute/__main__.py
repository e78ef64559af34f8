"""`python -m logroute`."""

from logroute.cli import program

program("logroute")
