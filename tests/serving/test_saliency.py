"""What is said of a saliency map that was measured on one image."""

import pytest

from vit_vs_cnn.evaluation.faithfulness import Areas
from vit_vs_cnn.serving.saliency import caution


@pytest.mark.parametrize(
    ("areas", "sentence"),
    [
        (Areas(0.3, 0.7, 0.5), None),
        (Areas(0.3, 0.4, 0.5), "Better than a random order of pixels only where they are deleted, not inserted"),
        (Areas(0.6, 0.7, 0.5), "Better than a random order of pixels only where they are inserted, not deleted"),
        (
            Areas(0.6, 0.4, 0.5),
            "No better than a random order of pixels (deletion AUC 0.60, insertion AUC 0.40",
        ),
    ],
)
def test_a_served_map_is_cautioned_about_unless_both_are_better(areas: Areas, sentence: str | None) -> None:
    said = caution(areas)
    assert (said is None) == (sentence is None)
    assert (said or "").startswith(sentence or "")
