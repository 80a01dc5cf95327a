"""explain@<contestant>: reports/explain/<contestant>/ with figures of what a contestant attends to and has learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.colours import contestant_colour
from vit_vs_cnn.core.paths import PREPARED, evaluated, explained, trained
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.explain.faithfulness import measure_maps
from vit_vs_cnn.explain.samples import SampleExplanations, explain_mistakes, explain_samples, shared_images
from vit_vs_cnn.models.trained import load_trained
from vit_vs_cnn.report.explanation import write_explanation, write_sample_images
from vit_vs_cnn.report.figure_writer import figure_count
from vit_vs_cnn.tracking.names import prefixed_metrics
from vit_vs_cnn.tracking.run import TrackedRun, add_to_run
from vit_vs_cnn.training.device import choose_device
from vit_vs_cnn.training.results import choose_replicate

_MEASURED_IMAGES = 64


def run(settings: Settings, contestant: str) -> None:
    """Explain a contestant's chosen replicate on test images that all contestants share, and on its own mistakes.

    The maps are measured on more images than are shown.
    """
    settings = with_tuned(settings, contestant)
    info, test = read_info(PREPARED), read_split(PREPARED, "test")
    seed = choose_replicate(settings, contestant).seed
    model = load_trained(settings, contestant, seed, info)
    predictions = read_evaluation(evaluated(contestant, seed)).predictions
    shown = shared_images(test.labels, settings.explain.images, info.split_seed)
    measured = shared_images(test.labels, _MEASURED_IMAGES, info.split_seed)
    faithfulness = measure_maps(
        model, explain_samples(model, test, predictions, measured), choose_device(settings.train)
    )
    same_images = explain_samples(model, test, predictions, shown)
    mistakes = explain_mistakes(model, test, predictions, settings.explain.images // 2)
    write_explanation(
        model,
        same_images,
        mistakes,
        faithfulness,
        info.classes,
        contestant_colour(settings.models, contestant),
        explained(contestant),
    )
    with add_to_run(trained(contestant, seed)) as tracked:
        for kind, measures in faithfulness.items():
            areas = {f"{name}_{kind}": area for name, area in measures.mean_areas().items()}
            tracked.log_metrics(prefixed_metrics("explain", areas))
        tracked.log_artifact(explained(contestant), "explanation")
        _log_images(tracked, {"same_images": same_images, "mistakes": mistakes}, info.classes)
    figures = figure_count(explained(contestant))
    print(f"explain {contestant}: {len(shown)} images that all contestants share, in {figures} figures")


def _log_images(tracked: TrackedRun, samples: Mapping[str, SampleExplanations | None], classes: Sequence[str]) -> None:
    """Log the samples by their name and place, under which MLflow shows those of all contestants beside each other."""
    with TemporaryDirectory() as scratch:
        for name, shown in samples.items():
            if shown is not None:
                write_sample_images(shown, classes, Path(scratch) / name)
                tracked.log_images(Path(scratch) / name, f"explanation/{name}")
