"""What the report that this project grew out of published: quoted, not measured here.

The report compared a ViT-B/16 with a ResNet-18 on CIFAR-10 in a notebook. Its table and its notebook's own log
contradict each other, which is why both stand here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """One line of the published table; the texts are the report's own."""

    model: str
    accuracy: str
    time_per_epoch: str
    parameters: str
    origin: str


PUBLISHED = (
    PublishedRow("ViT-B/16", "82–85 %", "30–50 s", "86M", "the report's table"),
    PublishedRow("ResNet-18", "78–80 %", "10–15 s", "11M", "the report's table"),
    PublishedRow("ViT-B/16", "94.61 % (test)", "about 465 s at batch 32", "86M", "the notebook's own log"),
)
