"""`python -m logroute`."""

from logroute.cli import main

main(prog_name="logroute")
