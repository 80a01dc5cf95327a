"""Coverage in the processes that the tests start; Python runs this file first in each, where `make test` names it.

Programs of others are left out: counting lines would slow down their imports by half, and none of the lines are ours.
"""

import os
import sys

FOREIGN = {"dvc", "mlflow", "prefect", "prefect.engine", "uvicorn", "stage.py"}

if "TESTS_COVERAGE_CONFIG" in os.environ and not FOREIGN.intersection(sys.orig_argv):
    import coverage

    # With this variable in the environment of all processes, coverage would start itself in all of them.
    os.environ["COVERAGE_PROCESS_START"] = os.environ["TESTS_COVERAGE_CONFIG"]
    coverage.process_startup()
    del os.environ["COVERAGE_PROCESS_START"]
