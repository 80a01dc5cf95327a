"""What a finished run ends with, for people and as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from factories import TINY, of_two
from vit_vs_cnn.cli.outcome import run_record, run_summary
from vit_vs_cnn.config.load import dump
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import COMPARE, PARAMS, REGISTERED, RUN_FILE, trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.orchestration.workspace import PipelineRun
from vit_vs_cnn.report.comparison import read_comparison, write_tables
from vit_vs_cnn.tracking.outbox import RunRef

VERSIONS = {"name": "tiny-classifier", "reason": "the better one"}


@pytest.fixture
def finished(settings: Settings, prepared: DatasetInfo) -> PipelineRun:
    """A run in whose workspace everything has been done."""
    of_two(settings, 90, 30)
    write_tables(read_comparison(settings), "An answer.", COMPARE)
    for name in settings.models:
        RunRef(key=name, experiment="tiny", name=f"train-{name}-0").write(trained(name, 0) / RUN_FILE)
    PARAMS.write_text(dump(TINY))
    REGISTERED.mkdir()
    (REGISTERED / "versions.json").write_text(json.dumps(VERSIONS))
    return PipelineRun("quick", Path.cwd(), settings, isolated=True, command="vit-vs-cnn run")


def test_the_command_that_promotes_names_the_data_of_the_run(finished: PipelineRun) -> None:
    expected = "tiny-classifier: the better one   (vit-vs-cnn registry promote --registry tiny)"
    assert expected in run_summary(finished)


def test_the_record_of_a_run_says_what_its_own_stages_found(finished: PipelineRun) -> None:
    whole = run_record(replace(finished, ran=("compare",), cached=("register",)))
    assert (whole["answer"], whole["registry"]) == ("An answer.", VERSIONS)
    training = run_record(replace(finished, ran=("train@vit-0",)))
    assert [training[key] for key in ("answer", "contestants", "report", "registry")] == [None, [], None, None]
    assert training["mlflow"]["runs"] == {}
    (REGISTERED / "versions.json").unlink()
    comparison = run_record(replace(finished, ran=("compare",)))
    assert (comparison["answer"], comparison["registry"]) == ("An answer.", None)
    assert [row["contestant"] for row in comparison["contestants"]] == ["vit", "resnet"]
