"""What a person asks to run, and the parameters that it means."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vit_vs_cnn.config.load import dump, merged_params, read_settings, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError, without_password
from vit_vs_cnn.core.git import git
from vit_vs_cnn.core.paths import PARAMS, main_root, state_dir
from vit_vs_cnn.core.records import Record, digest_of
from vit_vs_cnn.data.object_store import is_in_store
from vit_vs_cnn.orchestration.project import refuse_other_version


@dataclass(frozen=True)
class Request:
    """What a person asks to run; a name that is empty is made from the parameters.

    `stages` names the stages to run with what they need (none: all), `force` those that run though nothing changed;
    `train` stands for all `train@<contestant>-<seed>`. `in_place` runs params.yaml as it stands in the working tree.
    """

    preset: str = ""
    overrides: tuple[str, ...] = ()
    name: str = ""
    stages: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    in_place: bool = False

    def command(self, name: str) -> str:
        """The command for a terminal that asks for the same settings in the run `name`; passwords are not in it."""
        options = ["--preset", self.preset] if self.preset else []
        options += ["--name", name] if not self.in_place else []
        options += [part for override in self.overrides for part in ("--set", override)]
        return without_password(shlex.join(["vit-vs-cnn", "run", *options]))


def read_request(request: Request) -> tuple[str, Settings]:
    """The text of the run's params.yaml and the settings in it.

    Raises UserError where they are bad, or where the project was made for another version of the package.
    """
    root = main_root()
    refuse_other_version(root)
    if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)?", request.name):
        raise UserError(f"--name {request.name}: letters of a to z, digits, '-', '_' and '.' only.")
    if request.in_place:
        if request.preset or request.overrides or request.name:
            raise UserError("in place, params.yaml runs as it stands: do not set preset, changed settings or name.")
        settings = read_settings(root / PARAMS)
        return (root / PARAMS).read_text(encoding="utf-8"), settings
    params = merged_params(root, request.preset or None, request.overrides)
    if not request.name and not re.fullmatch(r"(\w[\w.-]*)?", request.preset):
        raise UserError(f"--preset {request.preset}: no run can be named after it; choose one with --name.")
    settings = settings_of(params)
    params["data"]["path"] = _reachable(settings.data.path, root)
    for contestant, model in settings.models.items():
        if model.weights is not None:
            params["models"][contestant]["weights"] = _reachable(model.weights, root)
    return dump(params), settings


class NetworkSize(Record):
    """The floating-point operations of a network for one image, and its number of parameters."""

    operations: int
    parameters: int


class _Checked(Record):
    """What was found of a set of contestants."""

    sizes: dict[str, NetworkSize]


def check_models(settings: Settings) -> dict[str, NetworkSize]:
    """Build every contestant without memory, once per set of contestants, and with the ends of what tuning may change.

    Returns the size of each. Raises UserError where one cannot be built, or where tuning cannot be set up.
    """
    data = settings.data
    facts = (settings.models, data.image_size, data.channels, settings.tune if settings.tune.trials else None)
    path = state_dir() / "network-sizes" / f"{digest_of(repr(facts).encode())}.json"
    if path.is_file():
        return _Checked.read(path, "delete it").sizes
    from vit_vs_cnn.data.dataset import decoding_of
    from vit_vs_cnn.models.build import check_model

    in_chans = decoding_of(data).in_chans
    sizes = {}
    for contestant, model in settings.models.items():
        operations, parameters = check_model(model, 10, data.image_size, f"models.{contestant}", in_chans)
        sizes[contestant] = NetworkSize(operations=operations, parameters=parameters)
    if settings.tune.trials:
        from vit_vs_cnn.tuning.sampling import check_search

        for contestant in settings.models:
            check_search(settings, contestant)
    path.parent.mkdir(parents=True, exist_ok=True)
    _Checked(sizes=sizes).write(path)
    return sizes


def _reachable(path: str, root: Path) -> str:
    """A path as the worktree can use it: what git, DVC or a store keeps stays, the rest becomes absolute."""
    if is_in_store(path) or Path(path).is_absolute() or (root / f"{path}.dvc").is_file():
        return path
    if git(root, "ls-files", "--error-unmatch", path).returncode == 0:
        return path
    found = next((base / path for base in (Path.cwd(), root) if (base / path).exists()), root / path)
    return str(found.resolve())
