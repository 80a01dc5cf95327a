"""Which of the processes that the tests start count the lines that they run: it makes them half as slow again."""

import os

# The environment of those that do: commands whose code no test runs in its own process.
COUNTED = {name: os.environ[name] for name in ("TESTS_COVERAGE_CONFIG",) if name in os.environ}

if "PYTEST_XDIST_WORKER" in os.environ:  # the process that starts the workers has to hand it on
    os.environ.pop("TESTS_COVERAGE_CONFIG", None)
