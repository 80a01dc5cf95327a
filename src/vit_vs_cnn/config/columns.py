"""The settings `data.columns`: what the columns of a table of images are called."""

from vit_vs_cnn.config.search_space import StrictModel


class ColumnSettings(StrictModel):
    """The columns of a table whose names are not the usual ones; a list for `label` names one 0/1 column per class."""

    image: str | None = None
    label: str | list[str] | None = None
    split: str | None = None
    group: str | None = None
