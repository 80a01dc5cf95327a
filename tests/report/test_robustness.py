"""Under shift: the sentence of the answer, the table and the figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from factories import contestant, robustness_results
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import robustness
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.corruptions import CLEAN
from vit_vs_cnn.evaluation.robustness import Robustness, write_robustness
from vit_vs_cnn.evaluation.shift import compare_under_shift
from vit_vs_cnn.report.comparison import read_comparison
from vit_vs_cnn.report.robustness import Shift, read_shift, shift_rows, shift_sentence, write_shift

COLOURS = {"vit": "#0072B2", "resnet": "#D55E00"}


def shift_of(groups: NDArray[np.int64] | None = None, **measured: Robustness) -> Shift:
    return Shift(measured, COLOURS, compare_under_shift(measured, 0.95, groups), "vit")


@pytest.fixture
def shift() -> Shift:
    return shift_of(
        vit=robustness_results({CLEAN: 3, "blur": 180, "noise": 10, "rotation": 30, "patches_dropped": 20}),
        resnet=robustness_results({CLEAN: 6, "blur": 60, "noise": 60, "patches_dropped": 90}),
    )


def test_the_sentence_names_where_each_leads_and_where_the_order_holds(shift: Shift) -> None:
    sentence = shift_sentence(shift)
    assert sentence is not None
    blur = next(result.leads[0] for result in shift.results if result.corruption == "blur")
    interval = f"({100 * blur.low:.1f} to {100 * blur.high:.1f})"
    assert sentence.startswith(f"Under blur resnet leads by 40.0 points {interval}, and under rotation; ")
    assert "; under noise vit leads by 16.7 points (" in sentence
    # Patches are no corruption. Of equal ones the order is that of the contestants.
    assert sentence.endswith("The order on clean images holds in 8 of 10 corruptions.")


def test_where_nothing_differs_by_more_than_chance_the_sentence_says_so() -> None:
    alike = shift_of(vit=robustness_results({CLEAN: 3}), resnet=robustness_results({CLEAN: 4}))
    assert shift_sentence(alike) == (
        "Under none of 10 corruptions does one lead by more than chance. The order on clean images holds in 10 of 10 "
        "corruptions."
    )


def test_of_three_one_leads_only_where_it_is_ahead_of_both_others() -> None:
    three = shift_of(
        vit=robustness_results({CLEAN: 3, "blur": 100, "noise": 100}),
        resnet=robustness_results({CLEAN: 6, "blur": 9, "noise": 10}),
        third=robustness_results({CLEAN: 9, "blur": 60, "noise": 9}),
    )
    rows = {row["corruption"]: row["lead"] for row in shift_rows(three)}
    assert rows["blur"].startswith("resnet +17.0 (")
    assert rows["noise"].startswith("none: third +0.3 (")
    # Nobody leads under noise, but the best on clean images is behind there, and by how much is said too.
    sentence = shift_sentence(three)
    assert sentence is not None
    assert sentence.startswith("Under noise third is ahead of vit by 30.3 points (")
    assert "; under blur resnet leads by 17.0 points (" in sentence


def test_of_one_alone_nothing_is_compared(prepared: DatasetInfo, tmp_path: Path) -> None:
    alone = shift_of(vit=robustness_results({"blur": 180}))
    assert shift_sentence(alone) is None
    assert {row["lead"] for row in shift_rows(alone)} == {""}
    write_shift(alone, np.zeros((8, 8, 3), np.uint8), prepared, tmp_path)


def test_the_table_says_who_leads_and_by_how_much(shift: Shift) -> None:
    rows = {row["corruption"]: row for row in shift_rows(shift)}
    assert rows["blur"]["accuracy vit"].startswith("40.0 (")
    assert rows["blur"]["lead"].startswith("resnet +40.0 (+")
    assert rows["jpeg"]["lead"].startswith("none: ")
    assert rows["blur"]["NLL lead"].startswith("−0.76 (−")
    assert rows["blur"]["ECE lead"].startswith("−40.0 (−")
    assert (rows["patches dropped"]["NLL vit"], rows["patches dropped"]["ECE vit"]) == ("0.50", "10.0")


def test_differences_of_one_group_have_no_interval() -> None:
    measured = {"vit": robustness_results({"blur": 180}), "resnet": robustness_results({"blur": 60})}
    rows = {row["corruption"]: row for row in shift_rows(shift_of(np.zeros(300, np.int64), **measured))}
    assert (rows["blur"]["NLL lead"], rows["blur"]["ECE lead"]) == ("−0.76 (no interval)", "−40.0 (no interval)")


def test_figures_and_the_numbers_behind_them(shift: Shift, prepared: DatasetInfo, tmp_path: Path) -> None:
    write_shift(shift, np.zeros((16, 16, 3), np.uint8), prepared, tmp_path)
    index = json.loads((tmp_path / "figures.json").read_text())
    assert [figure["file"] for figure in index["figures"]] == [
        "mean_accuracy.svg", "severities.svg", "patches.svg", "examples.png",
    ]  # fmt: skip
    assert "300 test images" in index["figures"][0]["caption"]
    assert "% clean and " in index["figures"][0]["alt"]
    assert all(figure["alt"] for figure in index["figures"])
    table = pd.read_csv(tmp_path / "robustness.csv").set_index(["corruption", "contestant"])
    assert table.loc[("blur", "vit"), "accuracy"] == pytest.approx(0.4)
    assert table.loc[("blur", "vit"), "leader"] == "resnet"
    assert table.loc[("blur", "vit"), "lead_over"] == "vit"
    assert table.loc[("blur", "vit"), "significant"]


def test_results_are_read_with_the_groups_of_the_images(settings: Settings, prepared: DatasetInfo) -> None:
    groups = tuple(f"person {row // 10}" for row in range(300))
    for name, errors in (("vit", 60), ("resnet", 40)):
        contestant(settings, name, errors, groups=groups)
    shift = read_shift(settings, read_comparison(settings))
    alone = compare_under_shift(shift.measured, 0.95)
    by_image, by_group = (
        next(result.leads[0] for result in results if result.corruption == "blur") for results in (alone, shift.results)
    )
    assert by_group.high - by_group.low > 1.5 * (by_image.high - by_image.low)
    write_robustness(robustness("vit"), robustness_results({}, images=200))
    with pytest.raises(UserError, match="was measured on other images"):
        read_shift(settings, read_comparison(settings))
