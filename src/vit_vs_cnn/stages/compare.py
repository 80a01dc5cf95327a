"""compare: reports/compare/ with tables, tests, charts and the report."""

import os

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import printable
from vit_vs_cnn.core.paths import COMMAND_VARIABLE, COMPARE, ERRORS, PREPARED, SHIFT, explained, trained
from vit_vs_cnn.data.checks import read_checks
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.evaluation.replicate_runs import record_replicates
from vit_vs_cnn.report.answer import answer, weaknesses
from vit_vs_cnn.report.comparison import read_comparison, summary_numbers, write_tables
from vit_vs_cnn.report.comparison_figures import write_comparison_figures
from vit_vs_cnn.report.errors import find_errors, write_errors
from vit_vs_cnn.report.html import Provenance, render_report
from vit_vs_cnn.report.map_quality import read_maps
from vit_vs_cnn.report.robustness import read_shift, shift_sentence, write_shift
from vit_vs_cnn.tracking.lineage import DIRTY_TAG, GIT_COMMIT_TAG, RUN_NAME_TAG, commit_page, lineage_tags
from vit_vs_cnn.tracking.names import prefixed_metrics
from vit_vs_cnn.tracking.pages import USUAL_PAGES, comparison_page, pages_address
from vit_vs_cnn.tracking.run import read_ref, start_run
from vit_vs_cnn.tracking.store import tracking_server
from vit_vs_cnn.tuning.summary import read_tuning_summary


def run(settings: Settings) -> None:
    """Compare all contestants and record the comparison with links to their runs."""
    for contestant in settings.models:
        settings = with_tuned(settings, contestant)
    info, test, comparison = read_info(PREPARED), read_split(PREPARED, "test"), read_comparison(settings)
    shift, errors = read_shift(settings, comparison), find_errors(comparison.predictions, settings.evaluate.confidence)
    searches = {name: read_tuning_summary(name) for name in settings.models}
    conclusion = " ".join(filter(None, [answer(comparison), shift_sentence(shift)]))
    weak = weaknesses(comparison, settings, searches, read_checks(PREPARED))
    write_tables(comparison, conclusion, COMPARE)
    write_comparison_figures(comparison, {name: read_maps(explained(name)) for name in settings.models}, COMPARE)
    write_shift(shift, test.images[0], info, SHIFT)
    if errors is not None:
        write_errors(errors, test, info.classes, ERRORS)
    trainings = [
        read_ref(trained(one.name, replicate.seed)) for one in comparison.contestants for replicate in one.replicates
    ]
    chosen = {one.name: read_ref(trained(one.name, one.chosen.seed)) for one in comparison.contestants}
    lineage = lineage_tags()
    pages = pages_address() or USUAL_PAGES
    command, commit = os.environ.get(COMMAND_VARIABLE, "vit-vs-cnn run"), lineage[GIT_COMMIT_TAG]
    provenance = Provenance(
        commit=commit,
        run_name=lineage.get(RUN_NAME_TAG),
        tracked=chosen,
        command=command,
        pages=pages,
        pages_stay=tracking_server() is not None,
        comparison_page=comparison_page(trainings, pages),
        commit_page=commit_page(commit),
        dirty=lineage[DIRTY_TAG] == "true",
    )
    page = render_report(settings, comparison, test, shift, errors, conclusion, weak, searches, provenance)
    (COMPARE / "report.html").write_text(page, encoding="utf-8")
    with start_run(settings, "compare") as tracked:
        tracked.set_tags({f"run.{contestant}": ref.run_id or ref.key for contestant, ref in chosen.items()})
        tracked.set_tags({"data.digest": info.digest})
        tracked.describe(conclusion, *weak)
        tracked.describe_experiment(info, trainings)
        tracked.log_metrics(prefixed_metrics("compare", summary_numbers(comparison)))
        tracked.log_artifact(COMPARE, "comparison")
    for one in comparison.contestants:
        record_replicates(settings, one)
    print(f"compare: {printable(conclusion)}")
