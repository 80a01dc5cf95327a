"""The settings of the project that a command was started in."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_vs_cnn.config.schema import Settings


def project_settings() -> "Settings":
    """The settings of params.yaml; the project folder becomes the working directory."""
    from vit_vs_cnn.config.load import read_settings
    from vit_vs_cnn.core.paths import PARAMS, project_root

    os.chdir(project_root())
    return read_settings(PARAMS)
