"""Which stages DVC restores from its run cache: another run has made them of the same inputs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
from dvc.stage.loader import StageLoader
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils import dict_sha256
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from voluptuous import Invalid

# What DVC keeps of a file beside its hash, and does not look for it by.
_NOT_IN_KEY = ["size", "nfiles"]


def restorable_stages(repo: Repo, ordered: Sequence[Any], changed: Iterable[str]) -> set[str]:
    """The names of the stages that DVC would restore, if those that they need are as they were, or restored.

    `ordered` are DVC's stages, each after those that it needs, `changed` the names of those that differ from their last
    run here. The inputs that DVC keeps of each stage are changed to what they would be.
    """
    changed, outputs = set(changed), _Outputs(repo)
    restorable, unknown = set[str](), set[str]()
    for stage in ordered if changed else ():
        needs = {needed.name for needed in repo.index.graph.successors(stage) if hasattr(needed, "name")}
        if needs & unknown:
            is_known = False
        elif stage.name in changed or needs & restorable:
            is_known = _find_outputs(repo, stage, outputs)
            restorable |= {stage.name} if is_known else set()
        else:
            is_known = True
        if not is_known or not outputs.add(stage.outs):
            unknown.add(stage.name)
    return restorable - unknown


def _find_outputs(repo: Repo, stage: Any, outputs: "_Outputs") -> bool:
    """Whether the cache has outputs of the stage for its inputs; their hashes become those of the stage then."""
    try:
        for dependency in stage.deps:
            if dependency.protocol != "local":
                return False
            if (predicted := outputs.at(dependency)) is not None:
                dependency.hash_info, dependency.meta = predicted, Meta()
            else:
                dependency.save()
        inputs = to_single_stage_lockfile(stage)
        inputs["outs"] = [out["path"] for out in inputs["outs"]]
        key = dict_sha256(inputs, exclude=_NOT_IN_KEY)
        entries = Path(repo.stage_cache.cache_dir, key[:2], key).glob("*")
        newest = max(entries, key=lambda entry: entry.stat().st_mtime, default=None)
        if newest is None:
            return False
        StageLoader.fill_from_lock(stage, COMPILED_LOCK_FILE_STAGE_SCHEMA(load_yaml(str(newest))))
        return bool(stage.outs_cached())
    # Inputs that are not there, a damaged entry: then the stage runs, and says what is wrong.
    except (DvcException, OSError, Invalid):
        return False


class _Outputs:
    """The files that stages will have made, by their paths, with their hashes."""

    def __init__(self, repo: Repo) -> None:
        self._root, self._files = repo.root_dir, dict[tuple[str, ...], Any]()

    def add(self, outs: Iterable[Any]) -> bool:
        """Note outputs of a stage, False where the cache lacks one."""
        for out in outs:
            parts = Path(out.fs_path).relative_to(self._root).parts
            if not out.hash_info.isdir:
                self._files[parts] = out.hash_info
            elif (tree := out.get_obj()) is not None:
                self._files |= {parts + inner: hash_info for inner, _, hash_info in tree}
            else:
                return False
        return True

    def at(self, dependency: Any) -> Any:
        """The hash of the file or folder that a stage depends on, None where no stage makes it."""
        path = Path(dependency.fs_path)
        if not path.is_relative_to(self._root):
            return None
        parts = path.relative_to(self._root).parts
        if parts in self._files:
            return self._files[parts]
        tree = Tree.from_list(
            [
                {Tree.PARAM_RELPATH: "/".join(file[len(parts) :]), **hash_info.to_dict()}
                for file, hash_info in self._files.items()
                if file[: len(parts)] == parts
            ]
        )
        if not len(tree):
            return None
        tree.digest()
        return tree.hash_info
