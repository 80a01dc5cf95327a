"""The settings of the project that a command was started in."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_vs_cnn.config import Settings


def project_settings() -> "Settings":
    """The settings of params.yaml; the project folder becomes the working directory."""
    from vit_vs_cnn.config import read_settings
    from vit_vs_cnn.layout import PARAMS, project_root

    os.chdir(project_root())
    return read_settings(PARAMS)
