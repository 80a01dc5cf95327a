"""How many images a run will have, as far as that is known before it reads them."""

import tarfile
from pathlib import Path

from dvc.utils.serialize import ParseError, load_yaml

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PARAMS, PREPARED, main_root
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.data.object_store import is_in_store

# Of train, val and test.
Images = tuple[int, int, int]

_KNOWN: dict[str, Images] = {"digits": (1_300, 150, 350), "cifar10": (45_000, 5_000, 10_000)}


def known_images(data: DataSettings, workspace: Path) -> Images | None:
    """How many images train, val and test have, as far as that is known before they are read."""
    whole = _KNOWN.get(data.source) or _prepared(data, workspace) or _prepared(data, main_root()) or _listed(workspace)
    if whole is None:
        return None
    train, val, test = whole
    return round(train * data.train_fraction), round(val * data.train_fraction), test


def _prepared(data: DataSettings, folder: Path) -> Images | None:
    """The images of the same data that are prepared in the folder, without the `train_fraction` that they have."""
    try:
        info, lock = read_info(folder / PREPARED), load_yaml(str(folder / "dvc.lock"))
        prepared = lock["stages"]["prepare"]["params"][PARAMS.name]["data"]
        fraction = prepared["train_fraction"]
    except (UserError, OSError, ParseError, KeyError, TypeError):
        return None
    # The path is the clone's own: a project's results and its workspaces name it from different folders.
    if info.name != data.name or Path(prepared.get("path", data.path)).name != Path(data.path).name:
        return None
    train, val, test = (info.splits[split].images for split in ("train", "val", "test"))
    return round(train / fraction), round(val / fraction), test


def _listed(workspace: Path) -> Images | None:
    """The images by their names in a folder, table or zip; what is missing is carved from train."""
    from vit_vs_cnn.data.overview import split_sizes
    from vit_vs_cnn.data.prepare import open_source

    data = read_settings(workspace / PARAMS).data
    path = workspace / data.path
    # To list a tar is to unpack it.
    if (
        data.source not in {"folder", "table"}
        or is_in_store(data.path)
        or (path.is_file() and tarfile.is_tarfile(path))
    ):
        return None
    try:
        sizes = split_sizes(open_source(data.model_copy(update={"path": str(path)})))
    except UserError:
        return None  # `prepare` says what is wrong
    train, val, test = (int(sizes[split].sum()) if split in sizes else 0 for split in ("train", "val", "test"))
    if "test" not in sizes:
        test = round(train * data.test_fraction)
        train -= test
    if "val" not in sizes:
        val = round(train * data.val_fraction)
        train -= val
    return train, val, test
