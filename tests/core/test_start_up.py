import os
import subprocess
import sys
from urllib.request import proxy_bypass_environment

import pytest

from vit_vs_cnn.core.start_up import reach_loopback_directly, sleep_while_waiting_where_busy, without


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("load", "chosen", "policy"), [(1.0, None, None), (2.0, None, "PASSIVE"), (2.0, "ACTIVE", "ACTIVE")]
)
def test_threads_sleep_on_a_busy_machine_unless_somebody_chose(
    load: float, chosen: str | None, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load` is for each core."""
    monkeypatch.setattr(os, "environ", {} if chosen is None else {"OMP_WAIT_POLICY": chosen})
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    sleep_while_waiting_where_busy()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_a_hidden_module_is_missing_for_a_while_and_one_that_was_imported_stays() -> None:
    with without("wave", "sys"):
        with pytest.raises(ImportError):
            import wave
        import sys as imported
    import wave

    assert wave.Error
    assert imported is sys


def test_torchvision_and_timm_import_without_the_compiler_which_is_there_when_it_is_asked_for() -> None:
    code = """
import sys, torch
from vit_vs_cnn.core.start_up import without_compiler
with without_compiler():
    import timm, torchvision
    import torchvision.transforms.v2.functional as tv
print("torch._dynamo" in sys.modules)
network = timm.create_model("resnet10t", num_classes=3).eval()
images = torch.zeros(2, 3, 32, 32)
print(tuple(network(tv.horizontal_flip(images)).shape), "torch._dynamo" in sys.modules)
boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
print(tuple(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).shape))
print(type(torch.compile(network)).__name__, callable(torch._dynamo.utils.is_compile_supported))
"""
    assert run(code).splitlines() == ["False", "(2, 3) False", "(1, 1, 2, 2)", "OptimizedModule True"]


def test_what_a_stand_in_does_not_have_is_taken_from_the_real_module() -> None:
    code = """
from vit_vs_cnn.core.start_up import without_compiler
with without_compiler():
    import torch._dynamo.utils
    from torch._dynamo import optimize
    from torch._dynamo.utils import counters
print(optimize.__module__.startswith("torch._dynamo"), type(counters).__name__)
"""
    assert run(code) == "True defaultdict"


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"no_proxy": "intern.example"}, "intern.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "intern.example"}, "intern.example,127.0.0.1,localhost"),
    ],
)
def test_no_proxy_is_asked_for_the_servers_of_this_machine(
    proxy: str, known: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {proxy: "http://proxy.invalid:3128", **known})
    reach_loopback_directly()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == expected
    assert [bool(proxy_bypass_environment(host)) for host in ("127.0.0.1", "localhost", "a.example")] == [1, 1, 0]


@pytest.mark.parametrize(
    "environment", [{}, {"no_proxy": "a"}, {"http_proxy": "http://proxy.invalid", "no_proxy": "*"}]
)
def test_without_a_proxy_or_where_it_is_for_no_host_nothing_changes(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(environment))
    reach_loopback_directly()
    assert os.environ == environment


@pytest.mark.parametrize(
    ("ending", "code"), [("pass", 0), ("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('no')", 1), ("1 / 0", 1)]
)
def test_a_process_leaves_after_its_exit_functions_and_threads_with_its_exit_code(ending: str, code: int) -> None:
    program = f"""
import atexit, sys, threading, time
from vit_vs_cnn.core.start_up import leave_quickly_after
def main():
    atexit.register(print, "tidied up")
    threading.Thread(target=lambda: (time.sleep(0.2), print("written"))).start()
    {ending}
leave_quickly_after(main)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stdout.split("\n") == ["written", "tidied up", ""]
