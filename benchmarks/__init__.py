"""Measures what logroute costs and how fast it is: `make bench`, or `python -m benchmarks --help`.

Whole programs in processes of their own, never functions. Costs are CPU seconds (user and system) of the
daemon's whole process, start-up included, and multiples of the floor: what a bare loop costs that reads the
same log file in chunks of a megabyte and decodes them. The floor is measured beside everything else, in
turns, because machines differ and are noisy.
"""
