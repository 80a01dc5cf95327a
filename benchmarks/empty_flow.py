"""A flow of one task, neither of which does anything: what capacity.py runs by a worker, and here one after the other.

python benchmarks/empty_flow.py RUNS     waits for a line of input after a first run
"""

import sys

from prefect import flow, task


@task
def nothing() -> None:
    """Do nothing."""


@flow
def empty() -> None:
    """Do nothing, as a task."""
    nothing()


if __name__ == "__main__":
    empty()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        empty()
