"""A study is named by its question, found by those who join, and drawn from its seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from optuna.trial import Trial

from harness.sleeping_study import sleeping, sleeping_study
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.tuning.study import TuningStudy, find_study
from vit_vs_cnn.tuning.worker import work


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[str]:
    return (f"sqlite:///{tmp_path / f'{index}.db'}" for index in range(10))


def found_or_sentence(storage: RDBStorage) -> str:
    try:
        return find_study(storage, "vit").name
    except UserError as error:
        return str(error)


def draws(tuning: TuningStudy) -> list[dict[str, Any]]:
    return [trial.params for trial in tuning.trials()]


def test_the_same_question_continues_its_study_and_another_one_begins_its_own(urls: Iterator[str]) -> None:
    url = next(urls)
    first = sleeping_study(url, 3)
    work(first, sleeping(first))
    more = sleeping_study(url, 5)
    assert more.name == first.name
    work(more, sleeping(more))
    assert len(more.trials()) == 5
    changes: list[dict[str, Any]] = [{"epochs": 5}, {"data_fraction": 0.5}, {"workers": 2}]
    names = {sleeping_study(url, 3, **change).name for change in changes}
    assert first.name in names  # the number of workers changes no answer
    assert len(names) == 3


def test_a_larger_budget_reaches_a_worker_that_runs(urls: Iterator[str]) -> None:
    url = next(urls)
    tuning = sleeping_study(url, 2)

    def raises_the_budget(trial: Trial) -> float:
        if trial.number == 1:
            sleeping_study(url, 4)
        return 0.5

    work(tuning, raises_the_budget)
    assert len(tuning.trials()) == 4


def test_the_study_to_join_is_the_last_unfinished_one_of_this_code(
    urls: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = next(urls)
    sleeping_study(url, 2)
    tuning = sleeping_study(url, 2, data_fraction=0.5)
    assert found_or_sentence(tuning.storage) == tuning.name
    monkeypatch.setattr("vit_vs_cnn.tuning.study._code_digest", lambda: "another")
    assert "were begun by another version of the code" in found_or_sentence(tuning.storage)


def test_there_is_no_finished_study_to_join(urls: Iterator[str]) -> None:
    tuning = sleeping_study(next(urls), 1)
    work(tuning, sleeping(tuning))
    assert found_or_sentence(tuning.storage).startswith("vit: no study to join in")


def test_one_worker_draws_the_same_from_the_same_seed_and_does_not_repeat_itself_when_it_is_restarted(
    urls: Iterator[str],
) -> None:
    once, twice = sleeping_study(next(urls), 8), sleeping_study(next(urls), 8)
    work(once, sleeping(once))
    with pytest.raises(OSError, match="disk"):
        work(twice, _fails_at(sleeping(twice), 4))
    work(twice, sleeping(twice))
    assert draws(once)[:5] == draws(twice)[:5]
    assert len({str(values) for values in draws(twice)}) == 8


def _fails_at(objective: Any, number: int) -> Any:
    def fails(trial: Trial) -> float:
        if trial.number == number:
            raise OSError("the disk is full")
        return float(objective(trial))

    return fails
