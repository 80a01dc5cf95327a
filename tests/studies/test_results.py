import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from study_factories import LAWS, measured, planned, results_of
from vit_vs_cnn.evaluation.pairs import compare_all_pairs
from vit_vs_cnn.report.figure_writer import FigureIndex
from vit_vs_cnn.studies.leads import Place, difference_at, lead_at, places_of
from vit_vs_cnn.studies.page import terminal_table
from vit_vs_cnn.studies.plan import Plan
from vit_vs_cnn.studies.publish import publish_study
from vit_vs_cnn.studies.results import (
    Results,
    RunFailure,
    read_results,
    record_result,
    results_table,
)
from vit_vs_cnn.studies.status import status_text, study_status
from vit_vs_cnn.studies.summary import answer, same_text, summarize, weaknesses

IMAGES = [0.01, 0.03, 0.1, 0.3, 1.0]
Axes = dict[str, list[bool | int | float | str | None]]
GRID: Axes = {"images": IMAGES, "epochs": [1, 4]}


def recorded(folder: Path, plan: Plan, failed: int = -1) -> Results:
    """Records of all runs, of which one failed."""
    for number, run in enumerate(plan.runs):
        failure = RunFailure(name=run.name, sentence="train@vit: the loss is not finite any more")
        record_result(folder, failure if number == failed else measured(run))
    return read_results(folder, plan)


def test_the_table_has_a_row_for_each_training_and_a_column_for_each_axis(tmp_path: Path, project: Path) -> None:
    plan = planned(GRID)
    recorded(tmp_path, plan)
    publish_study(plan, tmp_path)
    table = pd.read_csv(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "results.parquet"), check_dtype=False)
    assert len(table) == 5 * 2 * 2 * 2
    assert {"images", "epochs", "contestant", "seed", "accuracy", "val_accuracy", "train_seconds", "run"} <= {*table}
    assert (table["epochs"].unique().tolist(), table["trained_epochs"].unique().tolist()) == ([1, 4], [3])
    assert table.groupby("images")["train_images"].unique().tolist() == [[100], [300], [1000], [3000], [10_000]]
    first = measured(plan.runs[0]).replicates[0]
    assert table.loc[0, "accuracy"] == pytest.approx(first.right().mean()) == pytest.approx(first.accuracy)


def test_a_failed_run_is_a_hole_until_it_is_measured(tmp_path: Path) -> None:
    plan = planned(GRID)
    results = recorded(tmp_path, plan, failed=3)
    assert [run.name for run in results.open] == [plan.runs[3].name]
    assert results.failed == {plan.runs[3].name: "train@vit: the loss is not finite any more"}
    assert "9 of 10 runs done, 1 failed; about 50 s left" in status_text(study_status(results, {plan.runs[0].name}))
    assert "failed" in terminal_table(summarize(results))
    assert "1 of 10 runs have no result." in answer(summarize(results))
    record_result(tmp_path, measured(plan.runs[3]))
    assert read_results(tmp_path, plan).open == []


def test_a_result_of_other_settings_or_of_another_version_is_none(tmp_path: Path) -> None:
    plan = planned({"images": [1.0]})
    recorded(tmp_path, plan)
    changed = plan.model_copy(update={"runs": (plan.runs[0].model_copy(update={"overrides": ("train.epochs=9",)}),)})
    assert read_results(tmp_path, changed).done == {}
    edited = plan.model_copy(update={"runs": (plan.runs[0].model_copy(update={"settings": "another preset"}),)})
    assert read_results(tmp_path, edited).done == {}
    path = next((tmp_path / "runs").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": 1}))
    assert read_results(tmp_path, plan).done == {}


def test_what_comes_from_the_cache_keeps_the_time_that_it_took(tmp_path: Path) -> None:
    plan = planned({"images": [1.0]})
    recorded(tmp_path, plan)
    record_result(tmp_path, measured(plan.runs[0]).model_copy(update={"seconds": 1.0}))
    assert read_results(tmp_path, plan).done[plan.runs[0].name].seconds == 50.0


def test_the_answer_names_images_budget_lead_and_crossing() -> None:
    whole = answer(summarize(results_of(planned({"images": IMAGES}))))
    assert whole.startswith("With your 10,000 images and 3 epochs (3 min of training on this machine): vit, by ")
    assert "vit overtakes cnn at about " in whole
    few = answer(summarize(results_of(planned({"images": IMAGES[1:4], "seconds": [4, 16]}))))
    assert few.startswith("With 3,000 of your 10,000 images and 16 s of training on this machine: ")
    assert "No crossing between 300 and 3,000 images. vit would draw level with cnn at about " in few
    assert few.endswith("if the curves continue.")


def test_nothing_is_said_where_nothing_was_measured(project: Path, tmp_path: Path) -> None:
    plan = planned({"images": [0.1, 1.0]})
    summary = summarize(Results(plan, {}, {}))
    assert answer(summary).startswith("Nothing can be said yet")
    assert "1970" not in status_text(study_status(summary.results, ()))
    publish_study(plan, tmp_path)


def test_the_page_shows_what_a_name_holds_as_text(project: Path, tmp_path: Path) -> None:
    plan = planned({"images": [0.1, 1.0]})
    record_result(tmp_path, measured(plan.runs[0]))
    record_result(tmp_path, RunFailure(name=plan.runs[1].name, sentence="gpj\u202egnp.exe <b>: no image"))
    publish_study(plan, tmp_path)
    page = (tmp_path / "study.html").read_text()
    assert r"gpj\u202egnp.exe &lt;b&gt;: no image" in page
    assert "\u202e" not in page


@pytest.mark.parametrize(
    ("axes", "figures"),
    [
        (GRID, ["accuracy_by_images", "error_by_images", "accuracy_by_seconds", "lead_map"]),
        ({"images": IMAGES}, ["accuracy_by_images", "error_by_images", "accuracy_by_seconds", "lead"]),
        ({"images": IMAGES[:2]}, ["accuracy_by_images", "accuracy_by_seconds", "lead"]),
        ({"models.vit.pretrained": [False, True]}, ["accuracy_by_seconds", "lead"]),
        ({"data.split_seed": [0, 1, 2]}, ["accuracy_by_seconds", "lead"]),
    ],
)
def test_the_page_has_the_figures_that_the_axes_allow(
    axes: dict[str, list[bool | int | float | str | None]], figures: list[str], tmp_path: Path, project: Path
) -> None:
    plan = planned(axes)
    recorded(tmp_path, plan, failed=1 if len(plan.runs) > 3 else -1)
    publish_study(plan, tmp_path)
    index = FigureIndex.read(tmp_path / "figures.json", "")
    assert [Path(figure.file).stem for figure in index.figures] == figures
    assert all(figure.alt for figure in index.figures)
    page = (tmp_path / "study.html").read_text()
    assert ("interval of the exponent" in page) is ("error_by_images" in figures)
    assert page.count('<svg role="img"') == len(figures)
    assert ("the loss is not finite any more" in page) is (len(plan.runs) > 3)
    assert "http" not in page.replace("https://", "")


def test_intervals_of_repeated_splits_are_wider_than_splits_that_share_nothing_would_have() -> None:
    plan = planned({"data.split_seed": [0, 1, 2, 3], "images": [0.1, 1.0]})
    results = results_of(plan)
    places = places_of(results)
    assert [len(place.splits) for place in places] == [4, 4]
    assert [place.train_images for place in places] == [1000, 10_000]
    lead = lead_at(places[0], 0.95, 0.01)
    assert lead is not None
    assert (lead.leader, lead.rival) == ("cnn", "vit")
    assert lead.low < lead.difference < lead.high
    back = difference_at(places[0], "vit", "cnn", 0.95, 0.01)
    assert (back.low, back.high) == (pytest.approx(-lead.high), pytest.approx(-lead.low))


def test_one_contestant_alone_has_no_lead() -> None:
    plan = planned({"images": [1.0]})
    alone = plan.runs[0].model_copy(update={"contestants": ("vit",)})
    results = results_of(plan.model_copy(update={"runs": (alone,)}))
    place = places_of(results)[0]
    assert lead_at(place, 0.95, 0.01) is None
    assert np.mean(place.accuracies("vit")) > 0
    assert len(results_table(results)) == 2


def test_differences_within_the_margin_are_practically_none(tmp_path: Path, project: Path) -> None:
    plan = planned({"images": [0.3, 1.0]}).model_copy(update={"margin": 0.5})
    results = recorded(tmp_path, plan)
    lead = difference_at(places_of(results)[0], "vit", "cnn", 0.95, 0.5)
    assert lead.low <= 0 <= lead.high
    assert lead.verdict == "equal"
    assert difference_at(places_of(results)[0], "vit", "cnn", 0.95, 0.001).verdict == "undecided"
    level = plan.model_copy(update={"runs": plan.runs[:1]})
    assert "cnn and vit are practically equal, within 50 points: cnn is ahead by " in answer(
        summarize(read_results(tmp_path, level))
    )


def changed(results: Results, **by_contestant: dict[str, object]) -> Results:
    """The results with other facts of the trainings of a contestant."""
    for name, result in results.done.items():
        replicates = [one.model_copy(update=by_contestant.get(one.contestant, {})) for one in result.replicates]
        results.done[name] = result.model_copy(update={"replicates": tuple(replicates)})
    return results


def test_trainings_of_one_epoch_are_not_among_those_that_could_rise() -> None:
    said = weaknesses(summarize(changed(results_of(planned({"images": [0.1, 1.0]})), vit={"still_rising": True})))
    assert "Of 8 trainings some were still rising in their last epoch, more may help: 4 of vit." in said
    single = {"epochs": 1, "still_rising": False}
    said = weaknesses(
        summarize(changed(results_of(planned({"images": [0.1, 1.0]})), vit={"still_rising": True}, cnn=single))
    )
    assert (
        "Of 4 trainings of more than one epoch some were still rising in their last epoch, more may help: 4 of vit."
        in said
    )
    assert "4 of 8 trainings had one epoch, which cannot rise: more may help." in said


def test_what_weakens_the_answer_of_a_run_weakens_that_of_a_study() -> None:
    plan = planned({"images": [0.3]})
    name = plan.runs[0].name
    results = Results(plan, {name: measured(plan.runs[0], test_images=200)}, {})
    changed(results, vit={"parameters": 5000, "pretraining_images": 14_000_000})
    results.done[name] = results.done[name].model_copy(update={"findings": {"group_leakage": 3}})
    said = " ".join(weaknesses(summarize(results)))
    assert "The recipe of vit and cnn was not tuned (tune.trials: 0)" in said
    assert "They differ in pretraining data (vit 14M, cnn no images) and size (vit 5.0k, cnn 1.0k parameters)" in said
    assert "Train and test share groups (3 are in several splits)" in said
    assert "200 test images are few: " in said
    tuned = [run.model_copy(update={"trials": 9}) for run in results.plan.runs]
    results = Results(results.plan.model_copy(update={"runs": tuple(tuned)}), results.done, {})
    assert "tuned" not in " ".join(weaknesses(summarize(results)))


def test_a_lead_is_judged_as_a_run_judges_by_the_number_of_pairs() -> None:
    two = places_of(results_of(planned({"images": [0.15]})))[0]
    assert difference_at(two, "cnn", "vit", 0.95, 0.01).verdict == "better"
    split = two.splits[0]
    correct = split.correct | {"hybrid": split.correct["cnn"]}
    lead = difference_at(Place(two.values, (replace(split, correct=correct),)), "cnn", "vit", 0.95, 0.01)
    (pair,) = (pair for pair in compare_all_pairs(correct, 0.95, 0.01) if (pair.first, pair.second) == ("vit", "cnn"))
    assert (lead.difference, lead.low, lead.high) == (-pair.difference, -pair.high, -pair.low)
    assert lead.low > 0
    assert lead.verdict == pair.verdict == "undecided"
    assert lead.sure == 1 - pair.adjusted_p_value / 2 < 0.975


def test_a_lead_is_judged_over_the_one_that_it_is_least_sure_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Path
) -> None:
    monkeypatch.setitem(LAWS, "hybrid", LAWS["cnn"])
    plan = planned({"images": [0.1, 1.0], "epochs": [1, 4]}, (0, 1, 2, 3, 4))
    accuracies = {
        "cnn": [0.9] * 5,
        "vit": [0.85, 0.852, 0.848, 0.851, 0.849],
        "hybrid": [0.9, 0.9, 0.9, 0.9, 0.6],  # the mean is the lowest
    }

    def publish(accuracies: dict[str, list[float]]) -> str:
        for run in plan.runs:
            result = measured(run)
            replicates = tuple(
                one.model_copy(update={"correct": _right(accuracies[one.contestant][one.seed])})
                for one in result.replicates
            )
            record_result(tmp_path, result.model_copy(update={"replicates": replicates}))
        return answer(publish_study(plan, tmp_path))

    said = publish(accuracies)
    assert ": cannot be told from this, cnn is ahead of hybrid by 6.0 points (" in said
    assert "; cnn is better than vit by more than chance and not shown to be better than hybrid. " in said
    page = (tmp_path / "study.html").read_text()
    assert page.count("<td>+6.0 over hybrid</td>") == 4
    assert "&gt; 99 %" not in page
    assert "cnn +6.0 over hybrid" in (tmp_path / "answer.txt").read_text()
    said = publish(accuracies | {"hybrid": [0.7] * 5})
    assert ": cnn, by 5.0 points (" in said
    assert " over vit and 20.0 points (" in said


def _right(accuracy: float, images: int = 2000) -> str:
    return base64.b64encode(np.packbits(np.arange(images) < accuracy * images).tobytes()).decode()


def test_one_training_of_each_speaks_of_itself_alone(tmp_path: Path, project: Path) -> None:
    alone = "One training of each: intervals and confidences are of these trainings alone, others may have another"
    for axes, seeds in ((GRID, (0,)), ({"images": IMAGES}, (0,)), (GRID, (0, 1))):
        plan = planned(axes, seeds)
        recorded(tmp_path, plan)
        said = answer(publish_study(plan, tmp_path))
        assert (", in this one training of each: vit, by " in said) is (len(seeds) == 1)
        assert said in (tmp_path / "answer.txt").read_text()
        # Below the map and below the table.
        assert (tmp_path / "study.html").read_text().count(alone) == (2 if len(seeds) == 1 else 0)
        assert (alone in FigureIndex.read(tmp_path / "figures.json", "").figures[-1].caption) is (len(seeds) == 1)


def test_what_cannot_be_told_says_what_it_would_take() -> None:
    said = answer(summarize(results_of(planned({"images": [0.3]}))))
    assert "cannot be told from this, cnn is ahead of vit by 2.2 points" in said
    assert said.endswith(". About 3 trainings of each would settle it, if the difference stays as it is.")


def test_points_that_a_limit_of_epochs_cuts_short_are_named() -> None:
    plan = planned({"images": [0.01, 0.1, 1.0]})
    assert same_text(plan) == (
        "Fewer images have more epochs, so that every point makes about the optimizer steps of all images."
    )
    shares = zip(plan.runs, (0.09, 0.4, 1), strict=True)
    short = [run.model_copy(update={"steps_share": share}) for run, share in shares]
    assert same_text(plan.model_copy(update={"runs": tuple(short)})).endswith(
        "; max_epochs leaves fewer: 100 images 9 %, 1,000 images 40 % of them. What these points lack is training as "
        "well as images."
    )
