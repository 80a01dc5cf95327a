"""robustness@<contestant>: robustness/<contestant>/ with what a contestant is worth on changed test images."""

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import points
from vit_vs_cnn.core.paths import PREPARED, robustness, trained
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.evaluation.robustness import measure_robustness, write_robustness
from vit_vs_cnn.models.trained import load_trained
from vit_vs_cnn.tracking.names import prefixed_metrics
from vit_vs_cnn.tracking.run import add_to_run
from vit_vs_cnn.training.device import choose_device
from vit_vs_cnn.training.results import choose_replicate


def run(settings: Settings, contestant: str) -> None:
    """Measure all replicates of a contestant on corrupted test images, the same for every contestant."""
    settings = with_tuned(settings, contestant)
    info, test = read_info(PREPARED), read_split(PREPARED, "test")
    device = choose_device(settings.train)
    models = {seed: load_trained(settings, contestant, seed, info).to(device) for seed in settings.seeds}
    calls = {seed: model.probabilities for seed, model in models.items()}
    measured = measure_robustness(calls, test, info, settings.robustness.images, settings.evaluate.batch_size, device)
    folder, means = robustness(contestant), measured.means()
    write_robustness(folder, measured)
    with add_to_run(trained(contestant, choose_replicate(settings, contestant).seed)) as tracked:
        tracked.log_metrics(prefixed_metrics("robustness", means))
        tracked.log_artifact(folder, "robustness")
    print(
        f"robustness {contestant}: {points(means['accuracy'])} % of {len(measured.positions):,} test images right on "
        f"average over corruptions, {points(means['clean_accuracy'])} % of them as they are"
    )
