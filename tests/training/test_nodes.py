"""One training over two nodes, on loopback: each node is a process of its own with a state folder of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from harness.small_project import wait_for
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.core.process import stop_tree
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.orchestration.prefect_server import free_port
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.training.setup import make_plan, node_rank

Make = Callable[..., Settings]
EPOCHS = 6
OVERLAY = {
    "train": {"devices": 2, "nodes": 2},
    "recipe": {"augment": {"flip": 0.5}, "optimizer": {"name": "sgd", "lr": 0.05}},
}
TRAIN = f"""
import sys, torch
from factories import TINY
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant

def main():
    settings = parse_settings(merge(merge(TINY, {OVERLAY!r}), {{"train": {{"epochs": int(sys.argv[2])}}}}))
    splits = read_split(PREPARED, "train"), read_split(PREPARED, "val")
    job = prepare_contestant(settings, "vit", read_info(PREPARED), splits, quiet=True)
    try:
        with open_checkpoint(f"nodes-{{sys.argv[2]}}") as checkpoint:
            training = train_contestant(job, checkpoint, lambda row: print("epoch", row.epoch, flush=True))
    except UserError as error:
        sys.exit(f"error: {{error}}")
    torch.save(training.model.network.state_dict(), sys.argv[1])

if __name__ == "__main__":
    main()
"""


class Node:
    def __init__(self, rank: int, port: int, folder: Path, epochs: int) -> None:
        program, self.weights, self.log = folder / "node.py", folder / f"{rank}.pt", folder / f"{rank}.log"
        program.write_text(TRAIN)
        tests = str(Path(__file__).parent.parent)
        path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank), "PYTHONPATH": path,
            "VIT_VS_CNN_STATE": str(folder / f"state-{rank}"),
        }  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(program), str(self.weights), str(epochs)],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def epochs(self) -> list[int]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [int(words[1]) for words in lines if words[:1] == ["epoch"] and len(words) == 2]

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], list[Node]]]:
    """Start two nodes for so many epochs; at the end none is left."""
    nodes: list[Node] = []

    def start_two(epochs: int) -> list[Node]:
        port = free_port()
        nodes.extend(Node(rank, port, tmp_path, epochs) for rank in (0, 1))
        return nodes[-2:]

    yield start_two
    for node in nodes:
        stop_tree(node.process)


@pytest.mark.usefixtures("prepared")
def test_two_nodes_train_as_one_with_as_many_processes(
    make_settings: Make, start: Callable[[int], list[Node]], tmp_path: Path
) -> None:
    nodes = start(EPOCHS)
    assert [node.process.wait(900) for node in nodes] == [0, 0], nodes[0].log.read_text()
    settings = make_settings({**OVERLAY, "train": {"epochs": EPOCHS, "devices": 4}})
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    job = prepare_contestant(settings, "vit", read_info(PREPARED), splits, quiet=True)
    with open_checkpoint("one node") as checkpoint:
        alone = train_contestant(job, checkpoint, lambda _: None).model.network.state_dict()
    for rank in (0, 1):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(together[name], tensor) for name, tensor in alone.items())


@pytest.mark.usefixtures("prepared")
def test_a_lost_node_is_one_sentence_and_the_next_start_resumes(start: Callable[[int], list[Node]]) -> None:
    many = 10_000
    first, second = start(many)
    wait_for(lambda: len(first.epochs()) >= 2, 900)
    second.kill()
    assert first.process.wait(400) == 1
    errors = [line for line in first.log.read_text().splitlines() if line.startswith("error: ")]
    assert re.fullmatch(
        r"error: train\.nodes: the training over 2 nodes stopped, one of them did not come or was lost "
        r"\(RuntimeError: .*\): start it again on each, it continues after its last finished epoch\.",
        errors[0],
    )
    reached = first.epochs()[-1]
    first, _ = start(many)
    assert wait_for(first.epochs, 900)[0] > reached - 1


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "and MASTER_ADDR, MASTER_PORT, NODE_RANK not set: on each export MASTER_ADDR and MASTER_PORT"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "2"}, "and NODE_RANK=2: .* from 0 to 1"),
    ],
)
def test_a_node_that_does_not_know_where_to_meet_the_others_says_what_to_set(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"train.nodes: 2 nodes, {sentence}"):
        node_rank(make_plan(make_settings({"train": {"nodes": 2}}).train))


def test_batches_that_all_nodes_cannot_share_equally_are_refused(make_settings: Make) -> None:
    with pytest.raises(UserError, match=r"6 devices \(train\.devices × train\.nodes\) cannot share 16 images"):
        make_settings({"train": {"devices": 2, "nodes": 3}})
