"""Python imports this at every start of a process that is to die at a certain moment: its n-th change of a file.

KILL_AT names the moment as JSON: `process` (part of the command line), `change` (n), `opened` (as a file stands open
and empty, rather than before the change), `within` (the folder whose files count) and `reached` (a file that does not
exist yet, and is made when a process is there). The process then waits for whoever kills it; with `alone` it kills
itself. KILL_COUNT names a file to which every process adds how many changes it has made, at each.
"""

# ruff: noqa: PTH100, PTH110

import json
import os
import signal
import sys
import time

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR


def watch(command: str) -> None:
    """Watch this process, which was started as `command`, if `os.environ` asks for it."""
    moment = json.loads(os.environ.get("KILL_AT", "null"))
    counted = os.environ.get("KILL_COUNT")
    if counted:
        moment = {"process": "", "change": -1, "opened": False, "within": os.environ["KILL_WITHIN"], "reached": counted}
    elif moment is None or moment["process"] not in command or os.path.exists(moment["reached"]):
        return
    changes, busy = 0, False

    def on_event(event: str, arguments: tuple) -> None:
        nonlocal changes, busy
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if busy or not (opens or event in _CHANGES):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        busy = True
        try:
            if os.path.abspath(os.fsdecode(path)).startswith(moment["within"]):
                changes += 1
                if counted:
                    _note(counted, [command, changes])
                if changes == moment["change"]:
                    _die(moment, os.fsdecode(path) if opens and arguments[2] & os.O_TRUNC else "", event)
        finally:
            busy = False

    sys.addaudithook(on_event)


def _note(path: str, facts: list) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (json.dumps(facts) + "\n").encode())
    os.close(descriptor)


def _die(moment: dict, opened: str, event: str) -> None:
    try:
        descriptor = os.open(moment["reached"], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    if opened and moment["opened"]:
        os.truncate(opened, 0) if os.path.exists(opened) else os.close(os.open(opened, os.O_CREAT | os.O_WRONLY))
    os.write(descriptor, json.dumps([os.getpid(), event, opened]).encode())
    os.close(descriptor)
    if moment["alone"]:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(3600)


watch(" ".join(sys.orig_argv))
