"""The settings `data.splits`: where the split folders are, when their names do not tell."""

from typing import Annotated

from pydantic import AfterValidator

from vit_vs_cnn.config.search_space import StrictModel


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
