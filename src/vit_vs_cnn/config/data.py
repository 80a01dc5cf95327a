"""The settings `data`: where the images come from, how they are decoded, stored and split."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vit_vs_cnn.config.patterns import GroupPattern
from vit_vs_cnn.config.search_space import StrictModel

Fit = Literal["crop", "pad", "stretch"]
Channels = Literal["rgb", "grey"]


class ColumnSettings(StrictModel):
    """The columns of a table whose names are not the usual ones; a list for `label` names one 0/1 column per class."""

    image: str | None = None
    label: str | list[str] | None = None
    split: str | None = None
    group: str | None = None


def _inside(path: str) -> str:
    """Refuse a path that leads out of data.path, and an empty one."""
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"expected a folder within data.path, as it is named there, got {path!r}")
    return path


_Inside = Annotated[str, AfterValidator(_inside)]


class SplitFolders(StrictModel):
    """The folders of the splits within data.path; `.` is data.path itself."""

    train: _Inside
    val: _Inside | None = None
    test: _Inside | None = None


class DataSettings(StrictModel):
    """The images: where they come from and how they are stored and split.

    `dataset` is for the source torchvision; `columns`, `images` and `class_names` are for tables. `bit_depth` is how
    many bits images of more than 8 use; None finds the range of their levels in train. `splits` and `class_level` (of
    the class folders below the split folders) are for folders; None: as their names say. `groups` finds in an image's
    path what it shares with others: no carved split takes a part of a group, and intervals are by groups.
    `train_fraction` is the part of each class's images that is used for train and val; test stays whole.
    """

    source: Literal["cifar10", "folder", "table", "torchvision", "digits"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    path: str
    dataset: str | None = None
    columns: ColumnSettings = ColumnSettings()
    images: str | None = None
    class_names: dict[str | int, str] = Field(default_factory=dict)
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    fit: Fit = "crop"
    channels: Channels = "rgb"
    bit_depth: Annotated[int, Field(ge=8, le=16)] | None = None
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.2
    train_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    min_images_per_class: Annotated[int, Field(ge=3)] = 10
    on_bad: Literal["fail", "skip"] = "fail"
    splits: SplitFolders | None = None
    class_level: Annotated[int, Field(ge=1, le=16)] | None = None
    groups: GroupPattern | None = None
