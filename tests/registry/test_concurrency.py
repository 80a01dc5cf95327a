"""Promotions and rollbacks from several processes at once, some of them killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from factories import add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.promotion import promote, propose
from vit_vs_cnn.registry.versions import CHAMPION

VERSIONS = 4
CHANGES = int(os.environ.get("REGISTRY_CHANGES", "20"))
# Of more changes more are made at the same time, and more are cut off.
PROCESSES = 3 + CHANGES // 100
KILLS = CHANGES // 10

# Promotes and rolls back at random; says on standard output what it has done, so nothing done may be missing later.
WORKER = """
import json, random, sys
from pathlib import Path
from factories import TINY
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.core.errors import GateRejectedError, UserError
from vit_vs_cnn.registry.promotion import promote, propose, rollback
from vit_vs_cnn.registry.audit import AuditLog
from vit_vs_cnn.registry.versions import Registry
seed, changes, versions = map(int, sys.argv[1:])
draw, settings, registry = random.Random(seed), parse_settings(TINY), Registry("tiny-classifier")
log, number = AuditLog(registry), 0
while len(log.decisions()) < changes:
    number += 1
    why = f"{seed}-{number}"
    try:
        if draw.random() < 0.3:
            done = rollback(registry, reason=why)
        else:
            proposal = propose(registry, str(draw.randint(1, versions)), settings, Path("data/prepared"))
            if proposal is None:
                continue
            done = promote(registry, proposal, force=True, reason=why)
        print(json.dumps([why, done.previous_version, done.version]), flush=True)
    except (GateRejectedError, UserError):
        pass
"""


def test_changes_by_several_processes_with_kills_lose_nothing(settings: Settings, project: Path) -> None:
    registry = new_registry()
    for wrong in range(VERSIONS):
        add_version(settings, registry, range(10 * wrong))
    first = propose(registry, "1", settings, Path("data/prepared"))
    assert first is not None
    promote(registry, first)

    draw, logs = random.Random(0), project.parent / "logs"
    logs.mkdir()
    workers = [_start(seed, logs) for seed in range(PROCESSES)]
    kills = 0
    while any(worker.poll() is None for worker in workers):
        assert registry.aliases()[CHAMPION] in range(1, VERSIONS + 1), "there is a champion at every moment"
        at_work = [worker for worker in workers if worker.poll() is None and _lines(logs)]
        if kills < KILLS and at_work and draw.random() < 0.2:
            draw.choice(at_work).send_signal(signal.SIGKILL)
            kills += 1
            workers.append(_start(PROCESSES + kills, logs))
        time.sleep(0.05)
    assert {worker.returncode for worker in workers} <= {0, -signal.SIGKILL}, (logs / "errors").read_text()

    with open_audit_log(registry) as log:
        decisions = log.decisions()
    moves = [decision for decision in decisions if decision.moves]
    assert {move.action for move in moves} <= {"promoted", "rolled back", "moved back"}, "nothing looks changed by hand"
    assert sum(move.action == "moved back" for move in moves) <= kills, "only a kill leaves a move unfinished"
    # Each change begins where the one before it ended, the last one at the present champion.
    assert [move.previous_version for move in moves] == [None, *(move.version for move in moves[:-1])]
    assert moves[-1].version == registry.aliases()[CHAMPION]
    done = {tuple(json.loads(line)) for line in _lines(logs)}
    assert done <= {(move.reason, move.previous_version, move.version) for move in moves}
    assert len(decisions) >= CHANGES


def _start(seed: int, logs: Path) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-c", WORKER, str(seed), str(CHANGES), str(VERSIONS)]
    with (logs / f"{seed}.jsonl").open("wb") as out, (logs / "errors").open("ab") as errors:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(arguments, stdout=out, stderr=errors, env=environment)


def _lines(logs: Path) -> list[str]:
    return [line for path in logs.glob("*.jsonl") for line in path.read_text().splitlines()]
