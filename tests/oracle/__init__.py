"""The oracle: does a real daemon keep its promises while everything around it fails?

Containers of a simulated engine write numbered records (`workload`), a daemon in a process of its own brings
them to receivers that misbehave (`receivers`) and to disks that fill and freeze (`disks`), and faults drawn
from a seed (`faults`) hit all of it. What was written and what arrived is kept (`history`), and judged at the
end by functions that know nothing of how it came about (`checks`). `python -m tests.oracle --help`.
"""
