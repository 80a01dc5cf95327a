"""The proof of a registered version: measured again from its commit, its parameters and its data."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import PARAMS, PREPARED, trained, tuned
from vit_vs_cnn.data.dataset import DatasetInfo, Split, digest_of_split, read_info, read_split
from vit_vs_cnn.evaluation.results import Predictions, read_evaluation
from vit_vs_cnn.orchestration.workspace import dvc_succeeds, worktree_at
from vit_vs_cnn.registry.evidence import predict_registered
from vit_vs_cnn.registry.versions import Registry, Version
from vit_vs_cnn.tracking.lineage import GIT_COMMIT_TAG

# Float32 sums in another order: another machine or thread count may differ by so much without being another model.
_TOLERANCE = 1e-5
_LIBRARIES = ("torch", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class Finding:
    """One thing that was compared: what was recorded, what is found now."""

    what: str
    recorded: str
    found: str
    same: bool


def verify(registry: Registry, given: str, *, retrain: bool, say: Callable[[str], None]) -> str:
    """Rebuild the evidence of a version, a number or an alias, and compare it with what was recorded.

    Returns the findings as a table. Raises RunError with them where something differs, UserError where the commit
    or the data cannot be had here.
    """
    version = registry.version(given)
    tags = registry.client.get_run(version.run_id).data.tags
    with registry.artifacts(version, "lineage") as lineage, registry.artifacts(version, "evaluation") as evaluation:
        recorded = read_evaluation(evaluation).predictions
        say(f"checking out {tags[GIT_COMMIT_TAG][:12]} with the parameters and the data of version {version.number}")
        with worktree_at(tags[GIT_COMMIT_TAG], f"verify-{registry.name}-{version.number}") as workspace:
            _restore(workspace, lineage, version)
            info, test = read_info(workspace / PREPARED), read_split(workspace / PREPARED, "test")
            findings = [*_library_findings(lineage), *_data_findings(version, info, test)]
            probabilities = predict_registered(registry, version, info, test)
            findings += _prediction_findings("registered model", recorded, test, probabilities)
            if retrain:
                say(f"training {version.contestant} again")
                findings += _retrained_findings(registry, version, workspace, recorded, info, test)
    rows = [(each.what, "same" if each.same else "DIFFERS", each.recorded, each.found) for each in findings]
    findings_table = f"version {version.number}\n\n" + table([("what", "", "recorded", "found"), *rows], text_columns=4)
    if not all(each.same for each in findings):
        raise RunError(f"{registry.name}, {findings_table}")
    return findings_table


def _restore(workspace: Path, lineage: Path, version: Version) -> None:
    """Bring the worktree to where it was when the training began: uncommitted changes, parameters, data."""
    difference = lineage / "uncommitted.diff"
    if difference.is_file():
        answer = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", str(difference)], cwd=workspace, capture_output=True, check=False
        )
        if answer.returncode != 0:
            raise UserError(f"version {version.number}: its uncommitted changes do not fit its commit any more.")
    for name in (str(PARAMS), "dvc.lock"):
        if (lineage / name).is_file():
            shutil.copyfile(lineage / name, workspace / name)
    recipe = str(tuned(version.contestant))
    for target in (str(PREPARED), recipe):
        if dvc_succeeds(workspace, "checkout", "--force", target) or dvc_succeeds(workspace, "pull", "--force", target):
            continue
        stage = "prepare" if target != recipe else f"tune@{version.contestant}"
        if not dvc_succeeds(workspace, "repro", "--single-item", stage):
            raise UserError(
                f"version {version.number}: {target} of its data digest {version.tags.get('data.digest', '?')[:12]} is "
                "neither in DVC's cache nor in a remote, and cannot be made again from the source here."
            )


def _library_findings(lineage: Path) -> list[Finding]:
    from importlib.metadata import version

    recorded = dict(line.split("==", 1) for line in (lineage / "packages.txt").read_text().split())
    pairs = [(name, recorded.get(name, "none"), version(name)) for name in _LIBRARIES]
    # Another version need not mean another result: what counts are the predictions below.
    return [Finding(name, before, now, same=True) for name, before, now in pairs if before != now]


def _data_findings(version: Version, info: DatasetInfo, test: Split) -> list[Finding]:
    recorded = version.tags.get("data.digest", "?")
    digest = digest_of_split(test.images, test.labels)
    return [
        Finding("data digest", recorded[:12], info.digest[:12], recorded == info.digest),
        Finding("test images", info.splits["test"].digest[:12], digest[:12], digest == info.splits["test"].digest),
    ]


def _prediction_findings(
    what: str, recorded: Predictions, test: Split, probabilities: NDArray[np.float32]
) -> list[Finding]:
    if recorded.names != test.names:
        return [Finding(f"{what}: test images", f"{len(recorded.names):,}", f"{len(test):,}", same=False)]
    predicted = probabilities.argmax(axis=1)
    changed = int((predicted != recorded.predicted).sum())
    largest = float(np.abs(probabilities - recorded.probabilities).max())
    accuracies = (recorded.correct.mean(), (predicted == test.labels).mean())
    return [
        Finding(
            f"{what}: accuracy", f"{accuracies[0]:.2%}", f"{accuracies[1]:.2%}", bool(accuracies[0] == accuracies[1])
        ),
        Finding(f"{what}: predicted classes", f"{len(test):,}", f"{changed:,} differ", changed == 0),
        Finding(f"{what}: probabilities", f"within {_TOLERANCE:g}", f"{largest:.2g} at most", largest <= _TOLERANCE),
    ]


def _retrained_findings(
    registry: Registry, version: Version, workspace: Path, recorded: Predictions, info: DatasetInfo, test: Split
) -> list[Finding]:
    """Train with the code of the worktree, tracked in a store of its own."""
    import os

    import mlflow.pytorch
    import torch

    environment = os.environ | {
        "PYTHONPATH": str(workspace / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'verify.db'}",
        "VIT_VS_CNN_RUN": f"verify-{version.number}",
    }
    command = [sys.executable, "-c", "from vit_vs_cnn.cli import main; main()", "train", version.contestant]
    if subprocess.run(command, cwd=workspace, env=environment, check=False).returncode != 0:
        raise RunError(f"version {version.number}: its training cannot be run again; the reason stands above.")
    model = mlflow.pytorch.load_model(str(workspace / trained(version.contestant) / "model"))
    with torch.inference_mode():
        batches = np.array_split(np.arange(len(test)), max(1, len(test) // 256))
        answers = [model(torch.from_numpy(np.array(test.images[batch]))).numpy() for batch in batches]
    return _prediction_findings("trained again", recorded, test, np.concatenate(answers))
