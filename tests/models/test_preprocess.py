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


def test_a_channel_that_is_constant_in_train_stays_finite_and_changes_no_other() -> None:
    images = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    images[..., 1] = 51
    constant = Preprocess((0.4, 0.2, 0.6), (0.2, 0.0, 0.3), 16)(images)
    torch.testing.assert_close(constant[:, 1], torch.zeros(3, 16, 16))
    torch.testing.assert_close(constant[:, ::2], Preprocess(MEAN, STD, 16)(images)[:, ::2])


def test_what_is_visible_is_what_is_cut_out() -> None:
    images = torch.randint(0, 256, (3, 40, 40, 3), dtype=torch.uint8)
    cropped = Preprocess(MEAN, STD, 32, crop=0.8)
    assert cropped.resized_size == 40
    visible = cropped.visible(images.numpy())
    assert visible.shape == (3, 32, 32, 3)
    torch.testing.assert_close(cropped(images), Preprocess(MEAN, STD, 32)(torch.from_numpy(visible)))


def test_bicubic_stays_between_black_and_white() -> None:
    images = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    images[:, 4:12, 4:12] = 255
    pixels = Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 48, interpolation="bicubic")(images)
    assert (pixels.min(), pixels.max()) == (0.0, 1.0)


def test_one_mean_makes_grey_of_colours_and_leaves_grey_as_it_is() -> None:
    images = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    shown = Preprocess((0.0,), (1.0,), 16)(images) * 255
    expected = reference.rgb_to_grayscale(images.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(shown, expected, atol=0.1, rtol=0)
    grey = images[..., :1].expand(-1, -1, -1, 3)
    torch.testing.assert_close(Preprocess((0.0,), (1.0,), 16)(grey) * 255, grey[..., 0][:, None].float())
