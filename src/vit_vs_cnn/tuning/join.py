"""What a worker that joins from outside needs: the data that the study is about."""

from pathlib import Path

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, project_root, runs_dir
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.tuning.study import TuningStudy


def find_prepared(tuning: TuningStudy) -> Path:
    """The folder of prepared data with the study's digest: the project's, or that of one of its isolated runs.

    Raises UserError where there is none.
    """
    for folder in (project_root() / PREPARED, *sorted(runs_dir().glob(f"*/{PREPARED}"))):
        if (folder / "dataset.json").is_file() and read_info(folder).digest == tuning.data:
            return folder
    data = tuning.settings.data
    raise UserError(
        f"{tuning.contestant}: the study {tuning.name} is about the data {data.name} (digest {tuning.data[:12]}), "
        f"which are not here: `dvc pull` brings them, or `vit-vs-cnn prepare` makes them with data.path {data.path}."
    )
