import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from vit_vs_cnn.models.preprocess import Preprocess

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("size", [8, 16, 40])
def test_it_does_what_torchvision_does_image_by_image(size: int) -> None:
    images = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    result = Preprocess(MEAN, STD, size)(images)
    for image, got in zip(images, result, strict=True):
        scaled = image.permute(2, 0, 1).float() / 255
        expected = reference.normalize(reference.resize(scaled, [size, size], antialias=size < 16), MEAN, STD)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
