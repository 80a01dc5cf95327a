"""Shares of operations, beside what a network of known sizes must have."""

import pytest
import torch

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.operations import operation_shares

VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"}


def shares_of(size: int = 32, **model: object) -> dict[str, float]:
    settings = ModelSettings.model_validate(model)
    return operation_shares(create_model(settings, 10, size), size)


def test_the_shares_of_a_vision_transformer_are_those_of_its_matrix_products() -> None:
    tokens, width, depth = 64, 32, 2
    projections, scores = 4 * tokens * width**2, 2 * tokens**2 * width
    operations = {
        "attention": depth * (projections + scores),
        "MLPs": depth * 8 * tokens * width**2,
        "convolutions": tokens * width * 3 * 4**2,
        "other": width * 10,
    }
    total = sum(operations.values())
    shares = shares_of(timm="vit_tiny_patch16_224", args=VIT)
    assert shares == pytest.approx({kind: count / total for kind, count in operations.items()})


def test_convolutions_before_a_transformer_count_as_what_they_are() -> None:
    plain = shares_of(timm="vit_tiny_patch16_224", args=VIT)
    hybrid = shares_of(timm="vit_tiny_patch16_224", args=VIT, stem="conv")
    assert plain["convolutions"] < 0.1
    assert hybrid["convolutions"] > 0.4


def test_attention_pooling_counts_as_attention_and_the_network_stays_as_it_is() -> None:
    settings = ModelSettings(timm="vit_tiny_patch16_224", args={**VIT, "global_pool": "map"})
    network = create_model(settings, 10, 32).train()
    assert operation_shares(network, 32)["attention"] > shares_of(timm="vit_tiny_patch16_224", args=VIT)["attention"]
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("timm", ["resnet10t", "airbench94"])
def test_a_convolutional_network_is_made_of_convolutions(timm: str) -> None:
    shares = shares_of(timm=timm)
    assert shares["convolutions"] > 0.99
    assert shares["attention"] == shares["MLPs"] == 0.0
    assert sum(shares.values()) == pytest.approx(1.0)


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = create_model(ModelSettings(timm="resnet10t"), 10, 32).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    operation_shares(network, 32)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_gated_mlp_counts_as_an_mlp() -> None:
    tokens, width, hidden = 16 + 1, 48, 128  # beside the patches there is a class token
    args = {"patch_size": 8, "embed_dim": width, "depth": 1, "num_heads": 2, "mlp_ratio": hidden / width}
    shares = shares_of(timm="eva02_base_patch14_224", args=args)
    operations = {"MLPs": 3 * tokens * width * hidden, "attention": 4 * tokens * width**2 + 2 * tokens**2 * width}
    assert shares["MLPs"] / shares["attention"] == pytest.approx(operations["MLPs"] / operations["attention"])
    assert shares["other"] < 0.01  # the classifier


def test_attention_between_channels_is_attention_and_a_block_around_attention_and_mlp_is_both() -> None:
    tokens, width, heads = 16, 32, 2
    args = {"patch_size": 8, "embed_dim": width, "depth": 1, "num_heads": heads, "cls_attn_layers": 1}
    shares = shares_of(timm="xcit_nano_12_p8_224", args=args)
    attention = 4 * tokens * width**2 + 2 * tokens * width**2 // heads
    of_class_token = 2 * width**2 + 2 * (tokens + 1) * width**2 + 2 * (tokens + 1) * width
    mlps = 8 * (tokens + 1) * width**2  # of the patches, and then of the class token
    assert shares["MLPs"] / shares["attention"] == pytest.approx(mlps / (attention + of_class_token))
    assert shares["other"] < 0.01


def test_weights_for_whole_channels_make_no_transformer_and_attention_between_channels_does() -> None:
    assert shares_of(timm="gcresnext26ts")["attention"] == 0.0
    assert shares_of(64, timm="edgenext_xx_small")["attention"] > 0.05
