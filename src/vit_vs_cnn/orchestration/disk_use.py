"""How much of the disk a run will take, and how much is free."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vit_vs_cnn.orchestration.dag import Stage
from vit_vs_cnn.orchestration.image_counts import Images
from vit_vs_cnn.orchestration.request import NetworkSize

# Of the pixels: the prepared images, and a scratch file or DVC's cache.
_COPIES_OF_IMAGES = 2
# Of the weights that a training leaves: those of the best and of the last epoch, the exported model, MLflow's copy;
# of the checkpoint that it has meanwhile: three files, each with the network, its best weights, two means by AdamW.
_COPIES_OF_WEIGHTS, _COPIES_IN_CHECKPOINT = 4, 12
_BYTES_OF_PARAMETER = 4


@dataclass(frozen=True)
class DiskUse:
    """About how many bytes a run takes, None where the number of images is not known, and how many are free."""

    needed: int | None
    free: int

    def lines(self) -> list[str]:
        """For people, with a warning where the run does not fit."""
        if self.needed is None:
            return [f"  disk: {_size(self.free)} free, how much it takes is known when the images are read"]
        if self.needed == 0:
            return []
        if self.needed <= self.free:
            return [f"  disk: about {_size(self.needed)} of {_size(self.free)} free"]
        return [
            f"warning: the run takes about {_size(self.needed)} of disk space and {_size(self.free)} are free: "
            "`vit-vs-cnn clean` removes what is old; fewer seeds, smaller networks or smaller images take less."
        ]


def disk_use(
    running: list[Stage], image_size: int, sizes: Mapping[str, NetworkSize], images: Images | None, workspace: Path
) -> DiskUse:
    """About what the stages that run will write to the disk of the workspace."""
    parameters = [
        sizes[contestant].parameters
        for stage in running
        if stage.kind == "train" and (contestant := stage.contestant(sizes)) is not None
    ]
    copies = _COPIES_OF_WEIGHTS * sum(parameters) + _COPIES_IN_CHECKPOINT * max(parameters, default=0)
    free, weights = shutil.disk_usage(workspace).free, _BYTES_OF_PARAMETER * copies
    if not any(stage.kind == "prepare" for stage in running):
        return DiskUse(weights, free)
    return DiskUse(None if images is None else weights + _COPIES_OF_IMAGES * sum(images) * image_size**2 * 3, free)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{max(1, round(count / 1e6))} MB"
