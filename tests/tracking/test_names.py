from collections.abc import Callable

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.tracking.names import contestant_params, flatten_params, prefixed_metrics


def test_a_parameter_is_one_text_by_its_path() -> None:
    nested = {"a": {"b": 1, "c": {"d": None}}, "args": {}, "channels": [8, 8, 16], "empty": [], "on": True, "name": "x"}
    assert flatten_params(nested) == {
        "a.b": "1",
        "a.c.d": "none",
        "channels": "8, 8, 16",
        "empty": "none",
        "on": "true",
        "name": "x",
    }


def test_numbers_are_written_so_that_texts_sort_as_they_do() -> None:
    rates = [5e-06, 5e-05, 0.0005, 0.02, 1.0]
    written = [flatten_params({"lr": rate})["lr"] for rate in rates]
    assert written == ["0.000005", "0.00005", "0.0005", "0.02", "1.0"]
    assert sorted(written) == written


def test_the_parameters_of_a_training_have_the_paths_of_the_settings(make_settings: Callable[..., Settings]) -> None:
    params = flatten_params(contestant_params(make_settings({"recipe": {"clip_grad": None}}), "resnet"))
    assert {path: params[path] for path in ("seed", "train.epochs", "model.timm", "recipe.optimizer.lr")} == {
        "seed": "0",
        "train.epochs": "2",
        "model.timm": "resnet10t",
        "recipe.optimizer.lr": "0.002",
    }
    assert params["model.args.channels"] == "8, 8, 16, 16"
    assert params["model.pretrained"] == "false"
    assert params["recipe.clip_grad"] == "none"
    assert {path.split(".")[0] for path in params} == {"seed", "select_by", "train", "model", "recipe"}


def test_metrics_get_a_prefix_and_the_short_names_of_quality_measures() -> None:
    measured = {"accuracy": 0.5, "negative_log_likelihood": 1.0, "brier_score": 0.2, "expected_calibration_error": 0.1}
    assert prefixed_metrics("test", measured) == {
        "test/accuracy": 0.5,
        "test/nll": 1.0,
        "test/brier": 0.2,
        "test/ece": 0.1,
    }
