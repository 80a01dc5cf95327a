"""The DAG, read from DVC: which stages there are, what each needs, which of them are unchanged."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo

from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.config.schema import FlowSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PARAMS
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.data.object_store import is_in_store, require_bucket, store_errors
from vit_vs_cnn.orchestration.run_cache import restorable_stages

_LONGEST_CHANGE = 60


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: its name there, the stages it needs, whether it computes with a network.

    `changes` are what differs from its last run, in words; without any, DVC would skip it if the stages it needs are
    skipped. `settings` is a digest of the settings that it depends on. `restorable`: DVC has its outputs from another
    run with the same inputs, provided that none of the stages it needs runs.
    """

    name: str
    needs: tuple[str, ...]
    uses_accelerator: bool
    changes: tuple[str, ...]
    settings: str
    restorable: bool

    @property
    def kind(self) -> str:
        """The name without contestant and seed: `train` of `train@vit-0`."""
        return self.name.partition("@")[0]

    def contestant(self, contestants: Collection[str]) -> str | None:
        """The one of the contestants that the stage is of: `vit` of `train@vit-0`."""
        suffix = self.name.partition("@")[2]
        return next((name for name in (suffix, suffix.rpartition("-")[0]) if name in contestants), None)


def read_dag(workspace: Path) -> list[Stage]:
    """The stages of the project in `workspace`, each after those that it needs.

    Raises UserError where DVC cannot read dvc.yaml or params.yaml, or data in an object store.
    """
    try:
        with Repo(str(workspace), _wait_for_lock=True) as repo, _store_of_data(workspace):
            graph = repo.index.graph
            found = repo.status()
            ordered = [stage for stage in reversed(list(networkx.topological_sort(graph))) if hasattr(stage, "name")]
            dag = [_stage(stage, graph.successors(stage), found.get(stage.addressing, [])) for stage in ordered]
            names = restorable_stages(repo, ordered, [stage.name for stage in dag if stage.changes])
            return [replace(stage, restorable=stage.name in names) for stage in dag]
    except DvcException as error:
        problem = f"{workspace}: DVC cannot read the pipeline: {' '.join(str(error).split())}"
        if "dvc.lock" in problem:
            problem += "; delete it, or restore it with git: what the stages made is in DVC's cache and is found there."
        raise UserError(problem) from None


@contextmanager
def _store_of_data(workspace: Path) -> Iterator[None]:
    """DVC asks the store for what changed there, lets its errors pass, and waits long for one that stays silent."""
    path = read_settings(workspace / PARAMS).data.path if (workspace / PARAMS).is_file() else ""
    if not is_in_store(path):
        yield
        return
    with store_errors(f"data.path: {path}"):
        require_bucket(path)
        yield


def choose_stages(dag: Sequence[Stage], wanted: Sequence[str]) -> list[Stage]:
    """The wanted stages (none: all) and what they need. Raises UserError for a name that is not in the DAG."""
    if not wanted:
        return list(dag)
    chosen = resolve_names(dag, wanted)
    for stage in reversed(dag):
        if stage.name in chosen:
            chosen.update(stage.needs)
    return [stage for stage in dag if stage.name in chosen]


def resolve_names(dag: Sequence[Stage], wanted: Iterable[str]) -> set[str]:
    """The stages of these names; `train` and `train@vit` stand for all that begin so. Raises UserError for others."""
    names: set[str] = set()
    for name in wanted:
        found = {stage.name for stage in dag if name in (stage.name, stage.kind) or stage.name.startswith(f"{name}-")}
        if not found:
            raise UserError(f"there is no stage {name}; there are {', '.join(stage.name for stage in dag)}.")
        names |= found
    return names


def check_timeouts(dag: Sequence[Stage], settings: FlowSettings) -> None:
    """Raise UserError where flow.timeout_minutes names what is no stage, or lacks the default."""
    kinds = {stage.kind for stage in dag}
    for name in settings.timeout_minutes.keys() - kinds - {"default"}:
        raise UserError(f"flow.timeout_minutes.{name}: there is no such stage; there are {', '.join(sorted(kinds))}.")
    if "default" not in settings.timeout_minutes:
        raise UserError("flow.timeout_minutes: `default` is missing, the limit of stages that are not named.")


def timeout_seconds(stage: Stage, settings: FlowSettings) -> float:
    """How long the stage may take."""
    return 60 * settings.timeout_minutes.get(stage.kind, settings.timeout_minutes["default"])


def _stage(stage: Any, needs: Iterable[Any], found: list[Any]) -> Stage:
    params = [dependency for dependency in stage.deps if hasattr(dependency, "read_params")]
    values = {name: value for dependency in params for name, value in dependency.read_params().items()}
    return Stage(
        name=str(stage.name),
        needs=tuple(sorted(str(needed.name) for needed in needs if hasattr(needed, "name"))),
        uses_accelerator=bool((stage.meta or {}).get("accelerator")),
        changes=tuple(_changes(stage, params, found)) if found else (),
        settings=digest_of(json.dumps(values, sort_keys=True, default=str).encode()),
        restorable=False,
    )


def _changes(stage: Any, params: Iterable[Any], found: list[Any]) -> Iterator[str]:
    """What DVC found, in words: settings with their values, paths, the command."""
    if not any(dependency.hash_info for dependency in stage.deps):
        yield "has not run here yet"
        return
    for dependency in params:
        before = dependency.hash_info.value if dependency.hash_info else {}
        yield from _changed_settings(before, dependency.read_params())
    for change in found:
        if isinstance(change, str):
            yield "its command" if change == "changed command" else change
            continue
        for kind, paths in change.items():
            for path, how in paths.items():
                if isinstance(how, str):
                    yield path if kind == "changed deps" and how == "modified" else f"{path} is {how}"


def _changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The settings that differ, each with its values; of settings that were removed, or are nested deeper, the path."""
    for key in before.keys() | now.keys():
        old, new, where = before.get(key), now.get(key), f"{path}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changed_settings(old, new, f"{where}.")
        elif old != new:
            shown = f"{where} {_shown(old)} → {_shown(new)}"
            yield shown if len(shown) <= _LONGEST_CHANGE else where


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
