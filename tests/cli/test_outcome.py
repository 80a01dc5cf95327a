"""The last lines of a run."""

import json
from pathlib import Path

from factories import TINY, of_two
from vit_vs_cnn.cli.outcome import run_summary
from vit_vs_cnn.config.load import dump
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import COMPARE, PARAMS, REGISTERED, RUN_FILE, trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.orchestration.workspace import PipelineRun
from vit_vs_cnn.report.comparison import read_comparison, write_tables
from vit_vs_cnn.tracking.outbox import RunRef


def test_the_command_that_promotes_names_the_data_of_the_run(settings: Settings, prepared: DatasetInfo) -> None:
    of_two(settings, 90, 30)
    write_tables(read_comparison(settings), "An answer.", COMPARE)
    for name in settings.models:
        RunRef(key=name, experiment="tiny", name=f"train-{name}-0").write(trained(name, 0) / RUN_FILE)
    PARAMS.write_text(dump(TINY))
    REGISTERED.mkdir()
    (REGISTERED / "versions.json").write_text(json.dumps({"name": "tiny-classifier", "reason": "the better one"}))
    lines = run_summary(PipelineRun("quick", Path.cwd(), settings, isolated=True, command="vit-vs-cnn run"))
    assert "tiny-classifier: the better one   (vit-vs-cnn registry promote --registry tiny)" in lines
