import pytest

from vit_vs_cnn.data.dataset import Decoding


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (Decoding(), Decoding(), True),
        (Decoding(fit="pad"), Decoding(), False),
        (Decoding(channels="grey"), Decoding(), False),
        (Decoding(levels=(0, 4095)), Decoding(), False),
        (Decoding(levels=(0, 4095)), Decoding(levels=(0, 65535)), False),
        (Decoding(levels=(3, 4000)), Decoding(levels=(0, 4060)), True),
        (Decoding(levels=(3, 4000)), Decoding(levels=(0, 4200)), False),
    ],
)
def test_models_are_measured_on_images_of_the_same_decoding_up_to_a_little_of_the_range(
    one: Decoding, other: Decoding, agree: bool
):
    assert one.agrees_with(other) == other.agrees_with(one) == agree
