"""ViT or CNN? A measured answer on your own images."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_vs_cnn.serving.notebook import LoadedRun

__all__ = ["load_run"]


def load_run(name: str = "") -> "LoadedRun":
    """The results of the run that `vit-vs-cnn run --name NAME` made; without a name, of the project's folder.

    Raises UserError outside a project, and where there is no finished run of this name.
    """
    from vit_vs_cnn.serving.notebook import load_run as load

    return load(name)
