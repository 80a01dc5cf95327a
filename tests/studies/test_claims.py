import pytest

from study_factories import LAWS, planned, results_of
from vit_vs_cnn.report.claims import Claim
from vit_vs_cnn.studies.claims import judge_study
from vit_vs_cnn.studies.settings import AxisValue
from vit_vs_cnn.studies.summary import summarize

Axes = dict[str, list[AxisValue]]
GRID: Axes = {"images": [0.01, 0.03, 0.1, 0.3, 1.0], "epochs": [1, 4]}


def claims_of(axes: Axes, seeds: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, Claim]:
    """The claims by the words before a colon."""
    summary = summarize(results_of(planned(axes, seeds)))
    return {claim.text.partition(":")[0]: claim for claim in judge_study(summary)}


def verdicts(axes: Axes) -> dict[str, str]:
    return {text: claim.verdict for text, claim in claims_of(axes).items()}


def test_claims_are_judged_by_both_ends_of_an_axis() -> None:
    found = verdicts(GRID)
    assert found["ViTs need more data"] == "holds here"
    assert found["For small sets take a CNN."] == "holds here"
    assert found["ViTs excel on large sets."] == found["ViTs are more accurate than CNNs."] == "holds here"
    # With all images the ViT is ahead with the small budget too.
    assert found["ViTs need more compute."] == "does not hold here"
    assert claims_of(GRID)["A ResNet trains 3 times as fast per epoch."].measured.startswith(
        "vit takes 2.0 times as long as cnn"
    )
    # From 3,000 images on, either is ahead by little.
    few = verdicts({"images": [0.01, 0.1]})
    assert few["ViTs are more accurate than CNNs."] == "does not hold here"
    assert few["ViTs excel on large sets."] == "not measured here"  # 1,000 images


def test_inductive_bias_is_what_a_hybrid_has_beside_the_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = "Lack of inductive bias makes ViTs data-hungry."
    assert verdicts(GRID)[claim] == "not measured here"
    monkeypatch.setitem(LAWS, "hybrid", LAWS["cnn"])
    found = claims_of(GRID)[claim]
    assert found.verdict == "holds here"
    assert "vit minus hybrid" in found.measured
    monkeypatch.setitem(LAWS, "hybrid", LAWS["vit"])
    assert verdicts(GRID | {"images": [0.03, 1.0]})[claim] == "does not hold here"
    assert verdicts(GRID)[claim] == "cannot be told from this"  # both near chance with 100 images
    monkeypatch.delitem(LAWS, "hybrid")
    monkeypatch.setitem(LAWS, "wider vit", LAWS["cnn"])
    assert verdicts(GRID)[claim] == "not measured here"


def test_of_several_transformers_the_most_accurate_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAWS, "wider vit", (16.0, 0.625))
    monkeypatch.setitem(LAWS, "hybrid", (8.0, 0.625))
    found = claims_of(GRID)["ViTs are more accurate than CNNs."].measured
    assert "wider vit minus cnn" in found
    assert "one training" not in found
    assert claims_of({"images": [0.1, 1.0]}, seeds=(0,))["ViTs are more accurate than CNNs."].measured.endswith(
        "), in this one training of each"
    )


def test_two_that_learned_nothing_from_few_images_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAWS, "cnn", LAWS["vit"])
    found = claims_of(GRID)
    for text in ("ViTs need more data", "For small sets take a CNN."):
        assert found[text].verdict == "cannot be told from this"
        assert "), vit and cnn hardly better than chance" in found[text].measured


def test_claims_are_of_the_networks_whose_accuracies_they_compare() -> None:
    depth = "models.vit.args.depth"
    results = results_of(planned({depth: [1, 9]}))
    for run in results.plan.runs:
        result, parameters = results.done[run.name], 1000 * int(run.values[depth] or 0)
        replicates = [
            found.model_copy(update={"parameters": parameters}) if found.contestant == "vit" else found
            for found in result.replicates
        ]
        results.done[run.name] = result.model_copy(update={"replicates": tuple(replicates)})
    (claim,) = (claim for claim in judge_study(summarize(results)) if "times the parameters" in claim.text)
    assert "9.0" in claim.measured


def test_a_claim_that_the_study_does_not_measure_says_what_would() -> None:
    found = claims_of({"images": [1.0], "epochs": [1]})
    unmeasured = {text: claim.measured for text, claim in found.items() if claim.verdict == "not measured here"}
    assert unmeasured["ViTs need more data"] == (
        "vit-vs-cnn study made-up, with images: [0.1, 1.0] among its axes, measures it"
    )
    assert unmeasured["ViTs need more compute."] == (
        "vit-vs-cnn study made-up, with epochs: [1, 4] among its axes, measures it"
    )
    assert unmeasured["For efficiency take a CNN."] == (
        "vit-vs-cnn run --name made-up-images-1.0-epochs-1 --set 'seeds=[0, 1, 2, 3]' --set data.train_fraction=1.0 "
        "--set train.epochs=1 measures it"
    )
    assert unmeasured["For real time take a CNN."] == "the same run measures it"
    assert "ViTs are more accurate than CNNs." not in unmeasured


def test_the_order_of_the_values_changes_nothing() -> None:
    assert verdicts({"images": [1.0, 0.01, 0.1], "epochs": [4, 1]}) == verdicts(
        {"images": [0.01, 0.1, 1.0], "epochs": [1, 4]}
    )
    turned = claims_of({"images": [1.0, 0.1], "epochs": [4, 1]})["ViTs need more compute."].measured
    assert turned.startswith("1 epoch, 100 % of the images: vit minus cnn ")
    assert "; 4 epochs, 100 % of the images: vit minus cnn " in turned
