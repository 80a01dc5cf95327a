"""tune@<model>: tuned/<model>.yaml with the recipe that training uses, and how it was found."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.tuned import write_recipe
from vit_vs_cnn.core.paths import PREPARED, tuned, tuning_report
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.tuning.address import storage_address
from vit_vs_cnn.tuning.summary import TuningSummary, write_tuning_summary


def run(settings: Settings, name: str) -> None:
    """Search for a better recipe of contestant `name`; without trials, hand on its own, without heavy imports."""
    if settings.tune.trials == 0:
        _hand_on(settings, name)
    else:
        _search(settings, name)


def join(name: str) -> None:
    """Work on the study of `name` that is going on, with this machine's workers."""
    from vit_vs_cnn.tuning.join import find_prepared
    from vit_vs_cnn.tuning.search import search
    from vit_vs_cnn.tuning.storage import StudyStorage
    from vit_vs_cnn.tuning.study import find_study

    tuning = find_study(StudyStorage(storage_address()), name)
    search(tuning, find_prepared(tuning))
    print(f"tune {name}: the study {tuning.name} has its {tuning.budget.trials} trials")


def _hand_on(settings: Settings, name: str) -> None:
    write_recipe(settings, name, tuned(name))
    write_tuning_summary(TuningSummary(), name)
    gallery = FigureWriter(tuning_report(name))
    gallery.skip("Nothing was searched: tune.trials is 0.")
    gallery.close()


def _search(settings: Settings, name: str) -> None:
    from vit_vs_cnn.data.dataset import read_info
    from vit_vs_cnn.report.style import contestant_colour
    from vit_vs_cnn.report.tuning import write_tuning_report
    from vit_vs_cnn.tracking.run import start_run
    from vit_vs_cnn.tuning.record import record_found, record_question
    from vit_vs_cnn.tuning.result import find_best
    from vit_vs_cnn.tuning.search import search, waiting_turn
    from vit_vs_cnn.tuning.storage import StudyStorage
    from vit_vs_cnn.tuning.study import open_study

    info = read_info(PREPARED)
    tuning = open_study(StudyStorage(storage_address()), settings, name, info)
    with waiting_turn(tuning), start_run(settings, "tune", name, tuning.run_key) as tracked:
        record_question(tracked, tuning, info)
        search(tuning, PREPARED)
        found = find_best(tuning)
        write_recipe(settings, name, tuned(name), found.values)
        write_tuning_summary(found.summary, name)
        colour = contestant_colour(settings.models, name)
        write_tuning_report(tuning.study, found, name, colour, tuning_report(name))
        record_found(tracked, found)
        tracked.log_artifact(tuning_report(name), "tuning")
        tracked.log_artifact(tuned(name), "tuning")
