import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.data.loader import ResidentImages


def resident(count: int) -> ResidentImages:
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3)).copy()
    split = Split(images, np.arange(count, dtype=np.int64), tuple(map(str, range(count))))
    return ResidentImages(split, torch.device("cpu"))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 1000))
def test_a_shuffled_epoch_shows_each_image_once_at_most_with_its_own_label(count: int, batch: int, seed: int) -> None:
    data = resident(count)
    seen = []
    for images, labels, indices in data.shuffled(batch, torch.Generator().manual_seed(seed)):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
        assert torch.equal(indices, labels), "image i has the label i here"
        seen += labels.tolist()
    assert len(seen) == len(set(seen)) == min(count, data.steps(batch) * batch)


def test_in_order_gives_all_images_in_order() -> None:
    labels = torch.cat([labels for _, labels in resident(10).in_order(4)])
    assert labels.tolist() == list(range(10))


def test_the_order_follows_the_seed() -> None:
    data = resident(50)
    order = [
        torch.cat([labels for _, labels, _ in data.shuffled(10, torch.Generator().manual_seed(seed))]).tolist()
        for seed in (1, 1, 2)
    ]
    assert order[0] == order[1] != order[2]
