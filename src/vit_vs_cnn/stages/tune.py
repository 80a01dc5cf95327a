"""tune@<contestant>: tuned/<contestant>.yaml with the recipe that training uses, and how it was found."""

from vit_vs_cnn.config.load import write_recipe
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED, tuned, tuning_report, tuning_summary
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.tuning.summary import TuningSummary


def run(settings: Settings, contestant: str) -> None:
    """Search for a better recipe of the contestant; without trials keep its own, without heavy imports."""
    if settings.tune.trials > 0:
        _search(settings, contestant)
        return
    write_recipe(settings, contestant, tuned(contestant))
    TuningSummary().write(tuning_summary(contestant))
    writer = FigureWriter(tuning_report(contestant), "tuning")
    writer.skip("search")
    writer.close()
    print(f"tune {contestant}: no search (tune.trials is 0), the recipe stays as it is")


def _search(settings: Settings, contestant: str) -> None:
    from vit_vs_cnn.core.colours import contestant_colour
    from vit_vs_cnn.data.dataset import read_info
    from vit_vs_cnn.report.tuning import write_tuning_report
    from vit_vs_cnn.tracking.run import start_run
    from vit_vs_cnn.tuning.result import record_question, record_result, study_result
    from vit_vs_cnn.tuning.search import search, search_lock
    from vit_vs_cnn.tuning.storage import open_storage, storage_url
    from vit_vs_cnn.tuning.study import open_study

    info = read_info(PREPARED)
    tuning = open_study(open_storage(storage_url()), settings, contestant, info)
    with search_lock(tuning), start_run(settings, "tune", contestant, tuning.run_key) as tracked:
        record_question(tracked, tuning, info)
        search(tuning, PREPARED)
        result = study_result(tuning)
        write_recipe(settings, contestant, tuned(contestant), result.best.params)
        result.summary.write(tuning_summary(contestant))
        colour = contestant_colour(settings.models, contestant)
        write_tuning_report(result, contestant, colour, tuning_report(contestant))
        record_result(tracked, result)
        tracked.log_artifact(tuning_report(contestant), "tuning")
        tracked.log_artifact(tuned(contestant), "tuning")
        found = f"trial {result.summary.best_trial} of {result.summary.trials} has the best recipe"
        tracked.describe(found)
    print(f"tune {contestant}: {found}")
