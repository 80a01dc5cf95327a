"""What a person asks to run, and the parameters that it means."""

from dataclasses import dataclass
from pathlib import Path

from vit_vs_cnn.config.load import dump, merged_params, read_settings, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.git import git
from vit_vs_cnn.core.paths import PARAMS, main_root, state_dir
from vit_vs_cnn.core.records import digest_of
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


def read_request(request: Request) -> tuple[str, Settings]:
    """The text of the run's params.yaml and the settings in it.

    Raises UserError where they are bad, or where the project was made for another version of the package.
    """
    root = main_root()
    refuse_other_version(root)
    if request.in_place:
        if request.preset or request.overrides or request.name:
            raise UserError("in place, params.yaml runs as it stands: leave out preset, changed settings and name.")
        settings = read_settings(root / PARAMS)
        return (root / PARAMS).read_text(encoding="utf-8"), settings
    params = merged_params(root, request.preset or None, request.overrides)
    settings = settings_of(params)
    params["data"]["path"] = _reachable(settings.data.path, root)
    for contestant, model in settings.models.items():
        if model.weights is not None:
            params["models"][contestant]["weights"] = _reachable(model.weights, root)
    return dump(params), settings


def check_models(settings: Settings) -> None:
    """Build every contestant without memory, once per set of contestants, and with the ends of what tuning may change.

    Raises UserError where one cannot be built, or where tuning cannot be set up.
    """
    data = settings.data
    facts = (settings.models, data.image_size, data.channels, settings.tune if settings.tune.trials else None)
    stamp = state_dir() / "checked" / digest_of(repr(facts).encode())
    if stamp.is_file():
        return
    from vit_vs_cnn.data.dataset import decoding_of
    from vit_vs_cnn.models.build import check_model

    in_chans = decoding_of(data).in_chans
    for contestant, model in settings.models.items():
        check_model(model, 10, data.image_size, f"models.{contestant}", in_chans)
    if settings.tune.trials:
        from vit_vs_cnn.tuning.sampling import check_search

        for contestant in settings.models:
            check_search(settings, contestant)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def _reachable(path: str, root: Path) -> str:
    """A path as the worktree can use it: what git or DVC keeps stays relative, the rest becomes absolute."""
    if Path(path).is_absolute() or (root / f"{path}.dvc").is_file():
        return path
    if git(root, "ls-files", "--error-unmatch", path).returncode == 0:
        return path
    found = next((base / path for base in (Path.cwd(), root) if (base / path).exists()), root / path)
    return str(found.resolve())
