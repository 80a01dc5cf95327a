"""The proof of a registered version: measured again from its commit, its parameters and its data."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import torch

from vit_vs_cnn.core.console import points, points_between, table
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.git import git
from vit_vs_cnn.core.paths import PARAMS, PREPARED, STATE_VARIABLE, trained, tuned
from vit_vs_cnn.core.process import search_path
from vit_vs_cnn.data.dataset import DatasetInfo, Split, digest_of_split, read_info, read_split
from vit_vs_cnn.evaluation.results import Predictions, read_evaluation
from vit_vs_cnn.evaluation.significance import accuracy_difference_interval
from vit_vs_cnn.orchestration.workspace import worktree_at
from vit_vs_cnn.registry.evidence import predict_test
from vit_vs_cnn.registry.loading import RegisteredModel, load_exported, load_registered
from vit_vs_cnn.registry.versions import Registry, Version
from vit_vs_cnn.tracking.lineage import GIT_COMMIT_TAG

# Float32 sums in another order: another machine or thread count may differ by so much without being another model.
_TOLERANCE = 1e-5
# Where the same cannot come out to the last digit: a difference in accuracy up to this, or within chance, is none.
_MARGIN, _CONFIDENCE = 0.01, 0.95
_LIBRARIES = ("torch", "timm", "numpy", "pillow")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class VerifiedValue:
    """A value of the version as it was recorded, and as it is found now."""

    what: str
    recorded: str
    found: str
    same: bool


def verify(registry: Registry, given: str, *, retrain: bool, say: Callable[[str], None]) -> str:
    """Measure a version, a number or an alias, again and compare with what was recorded.

    Returns both as a table. Raises RunError with it where something differs, UserError where the commit
    or the data cannot be had here.
    """
    version = registry.version(given)
    run = registry.client.get_run(version.run_id).data
    commit = run.tags[GIT_COMMIT_TAG]
    with registry.artifacts(version, "lineage") as lineage, registry.artifacts(version, "evaluation") as evaluation:
        recorded = read_evaluation(evaluation).predictions
        say(f"checking out {commit[:12]} with the parameters and the data of version {version.number}")
        with worktree_at(commit, f"verify-{registry.name}-{version.number}") as workspace:
            _restore(workspace, lineage, version)
            info, test = read_info(workspace / PREPARED), read_split(workspace / PREPARED, "test")
            found = predict_test(load_registered(registry.name, version.number, _CPU), info, test)
            before = {"device": version.tags.get("device", ""), "precision": run.tags.get("precision", "")}
            elsewhere = None if _is_cpu(before["device"]) else f"measured on {before['device']}, now on a CPU"
            values = [
                *_compare_libraries(lineage),
                *_compare_data(version, info, test),
                *compare_predictions("registered model", recorded, found, elsewhere),
            ]
            if retrain:
                say(f"training {version.contestant} again")
                model, now = _retrained(registry, version, workspace)
                chance = why_by_chance(before, now, deterministic=run.params.get("train.deterministic") == "true")
                # Both as they are here: what was recorded may have been measured on another device.
                values += compare_predictions("trained again", found, predict_test(model, info, test), chance)
    rows = [(value.what, "same" if value.same else "DIFFERS", value.recorded, value.found) for value in values]
    report = f"version {version.number}\n\n" + table([("what", "", "recorded", "found"), *rows], text_columns=4)
    if not all(value.same for value in values):
        raise RunError(f"{registry.name}, {report}")
    return report


def _restore(workspace: Path, lineage: Path, version: Version) -> None:
    """Bring the worktree to its state when the training began: uncommitted changes, parameters, data."""
    difference = lineage / "uncommitted.diff"
    is_clean = not difference.is_file() or not difference.stat().st_size
    if not is_clean and git(workspace, "apply", "--whitespace=nowarn", str(difference)).returncode != 0:
        raise UserError(f"version {version.number}: its uncommitted changes do not apply to its commit.")
    for name in (str(PARAMS), "dvc.lock"):
        if (lineage / name).is_file():
            shutil.copyfile(lineage / name, workspace / name)
    recipe = tuned(version.contestant)
    for target, stage in ((str(PREPARED), "prepare"), (str(recipe), f"tune@{version.contestant}")):
        ways = (["checkout", "--force", target], ["pull", "--force", target], ["repro", "--single-item", stage])
        if not any(_succeeds(workspace, [sys.executable, "-m", "dvc", *way], capture_output=True) for way in ways):
            raise UserError(
                f"version {version.number}: {target} of its data digest {version.tags.get('data.digest', '?')[:12]} is "
                "neither in DVC's cache nor in a remote, and cannot be made again from the source here."
            )


def _compare_libraries(lineage: Path) -> list[VerifiedValue]:
    recorded = dict(line.split("==", 1) for line in (lineage / "packages.txt").read_text().split())
    pairs = [(name, recorded.get(name, "none"), installed_version(name)) for name in _LIBRARIES]
    # Another version of a library need not change the result: the predictions below decide.
    return [VerifiedValue(name, before, now, same=True) for name, before, now in pairs if before != now]


def _compare_data(version: Version, info: DatasetInfo, test: Split) -> list[VerifiedValue]:
    digests = {
        "data digest": (version.tags.get("data.digest", "?"), info.digest),
        "test images": (info.splits["test"].digest, digest_of_split(test.images, test.labels)),
    }
    return [
        VerifiedValue(what, recorded[:12], found[:12], recorded == found) for what, (recorded, found) in digests.items()
    ]


def why_by_chance(before: Mapping[str, str], now: Mapping[str, str], *, deterministic: bool) -> str | None:
    """Why a training need not end in the same weights as before, None where it has to.

    `before` and `now` say on which `device` and in which `precision`; what is not known before is empty.
    """
    for what, value in before.items():
        if value and now[what] != value:
            return f"{what} {value}, now {now[what]}"
    return None if deterministic or _is_cpu(before["device"]) else f"{before['device']} without train.deterministic"


def compare_predictions(
    what: str, recorded: Predictions, found: Predictions, chance: str | None = None
) -> list[VerifiedValue]:
    """Compare predictions for the same images: where `chance` says why they need not be the same, by their accuracy."""
    images = f"{len(recorded.names):,}"
    if recorded.names != found.names:
        return [VerifiedValue(f"{what}: test images", images, f"{len(found.names):,}", same=False)]
    before, now = float(recorded.correct.mean()), float(found.correct.mean())
    accuracy = (f"{what}: accuracy", f"{before:.2%}", f"{now:.2%}")
    if chance is not None:
        low, high = accuracy_difference_interval(found.correct, recorded.correct, recorded.group_codes, _CONFIDENCE)
        rule = f"at most {100 * _MARGIN:g} point, or 0 within the {100 * _CONFIDENCE:g} % interval ({chance})"
        difference = (int(found.correct.sum()) - int(recorded.correct.sum())) / len(recorded.names)
        interval = f"{points(difference, sign=True)} points ({points_between(low, high)})"
        same = abs(difference) <= _MARGIN or low <= 0.0 <= high
        return [
            VerifiedValue(*accuracy, same=same),
            VerifiedValue(f"{what}: difference", rule, interval, same=same),
        ]
    changed = int((found.predicted != recorded.predicted).sum())
    largest = float(np.abs(found.probabilities - recorded.probabilities).max())
    within = f"within {_TOLERANCE:g}"
    return [
        VerifiedValue(*accuracy, same=before == now),
        VerifiedValue(f"{what}: predicted classes", images, f"{changed:,} differ", changed == 0),
        VerifiedValue(f"{what}: probabilities", within, f"{largest:.2g} at most", largest <= _TOLERANCE),
    ]


def _retrained(registry: Registry, version: Version, workspace: Path) -> tuple[RegisteredModel, dict[str, str]]:
    """Run the training again, load the model that it exports, and say on which device and in which precision it ran."""
    command, folder = ["vit-vs-cnn", "train", version.contestant], workspace / "trained" / version.contestant
    if version.seed is not None:  # the code of a version without one trained each contestant once
        command, folder = [*command, "--seed", str(version.seed)], workspace / trained(version.contestant, version.seed)
    if not _succeeds(workspace, command):
        raise RunError(f"version {version.number}: its training failed; the reason stands above.")
    # Of the version's own code: it may have other keys than the summary of today.
    summary = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    model = load_exported(folder / "model", registry.name, version.number, _CPU)
    return model, {key: str(summary[key]) for key in ("device", "precision")}


def _is_cpu(device: str) -> bool:
    """Whether it is the name of a CPU (training/device.py), or none is known."""
    return not device or device.startswith("CPU")


def _succeeds(workspace: Path, command: list[str], *, capture_output: bool = False) -> bool:
    """Whether `command` succeeds with the code of the worktree, tracked in a store of its own."""
    environment = os.environ | {
        "PATH": search_path(),
        "PYTHONPATH": str(workspace / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'verify.db'}",
        STATE_VARIABLE: str(workspace / ".vit-vs-cnn"),  # what is pending in the project's is for another store
        "VIT_VS_CNN_RUN": workspace.name,
    }
    answer = subprocess.run(command, cwd=workspace, env=environment, capture_output=capture_output, check=False)
    return answer.returncode == 0
