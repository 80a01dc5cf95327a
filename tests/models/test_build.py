import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.models.build import check_model, create_model

SMALL_VIT = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("timm", "args"),
    [
        ("vit_tiny_patch16_224", SMALL_VIT),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", SMALL_VIT),
        ("resnet10t", {}),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]}),
        (
            "swin_tiny_patch4_window7_224",
            {"patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]},
        ),
    ],
)
def test_any_timm_architecture_gives_logits_of_the_stored_image_size(timm: str, args: dict[str, int]) -> None:
    model = ModelSettings(timm=timm, args=args)
    for in_chans in (3, 1):
        check_model(model, 7, 32, "models.x", in_chans)
        network = create_model(model, 7, 32, in_chans=in_chans)
        assert network(torch.zeros(2, in_chans, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            ModelSettings(timm="vit_tiny_patch16_225"),
            "timm has no model 'vit_tiny_patch16_225'; the nearest are vit_tiny",
        ),
        (ModelSettings(timm="zzzzzzzzzz"), "timm has no model 'zzzzzzzzzz'."),
        (
            ModelSettings(timm="resnet18.a1_in2k"),
            "timm has no model 'resnet18.a1_in2k'; the nearest are resnet18.a1_in1k",
        ),
        (ModelSettings(timm="vit_tiny_patch16_224", input_size=30), "30 px cannot be cut into patches of 16 px"),
        (ModelSettings(timm="resnet18", args={"no_such": 1}), "models.x.args: resnet18 cannot be built with"),
        (ModelSettings(timm="vit_tiny_patch16_224", stem="cifar"), "models.x.stem: 'cifar' is for timm's ResNets"),
        (ModelSettings(timm="resnet18", stem="conv"), "models.x.stem: 'conv' is for timm's vision transformers"),
        (
            ModelSettings(timm="vit_tiny_patch16_224", stem="conv", input_size=36, args={"patch_size": 12}),
            "whose patch size is a power of 2",
        ),
        (ModelSettings(timm="inception_v3"), "inception_v3 does not take images of 32 px"),
    ],
)
def test_what_cannot_be_built_is_one_sentence_with_the_key(model: ModelSettings, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        check_model(model, 10, 32, "models.x")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_operations_of_a_transformer_are_all_its_products_those_of_attention_too() -> None:
    patches, tokens, width = 16, 17, 24
    embedding, classifier = patches * width * 3 * 8**2, width * 10
    block = 4 * tokens * width**2 + 2 * tokens**2 * width + 8 * tokens * width**2
    model = ModelSettings(timm="vit_tiny_patch16_224", args=SMALL_VIT)
    operations, _ = check_model(model, 10, 32, "models.x")
    assert operations == 2 * (embedding + block + classifier)


def test_what_a_network_tries_out_while_it_is_built_does_not_count() -> None:
    model = ModelSettings(timm="vit_tiny_r_s16_p8_224")  # its backbone sees an image first, for the size of its maps
    network = create_model(model, 10, 224).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 224, 224))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert check_model(model, 10, 224, "models.x") == (counter.get_total_flops(), parameters)


def test_the_cifar_stem_keeps_the_resolution_of_small_images() -> None:
    plain = create_model(ModelSettings(timm="resnet18"), 10, 32).eval()
    cifar = create_model(ModelSettings(timm="resnet18", stem="cifar"), 10, 32).eval()
    images = torch.zeros(1, 3, 32, 32)
    assert plain.forward_features(images).shape[-1] == 1
    assert cifar.forward_features(images).shape[-1] == 4


@pytest.mark.parametrize(("patch_size", "convolutions"), [(2, 3), (4, 4), (8, 5)])
def test_the_conv_stem_gives_as_many_tokens_as_the_patches_it_replaces(patch_size: int, convolutions: int) -> None:
    args = {**SMALL_VIT, "patch_size": patch_size}
    plain = create_model(ModelSettings(timm="vit_tiny_patch16_224", args=args), 10, 32).eval()
    conv = create_model(ModelSettings(timm="vit_tiny_patch16_224", args=args, stem="conv"), 10, 32).eval()
    images = torch.zeros(1, 3, 32, 32)
    assert plain.forward_features(images).shape == conv.forward_features(images).shape
    assert sum(isinstance(module, torch.nn.Conv2d) for module in conv.modules()) == convolutions


def test_a_frozen_backbone_leaves_the_classifier_to_train() -> None:
    network = create_model(ModelSettings(timm="resnet18", freeze_backbone=True), 10, 32)
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == {
        "fc.weight",
        "fc.bias",
    }


@pytest.mark.parametrize(
    "model",
    [
        ModelSettings(timm="resnet18", stem="cifar"),
        ModelSettings(timm="vit_tiny_patch16_224", args=SMALL_VIT, stem="conv"),
        ModelSettings(timm="airbench94"),
    ],
    ids=["cifar", "conv", "airbench"],
)
def test_every_stem_takes_one_channel(model: ModelSettings) -> None:
    check_model(model, 10, 32, "models.x", 1)
