"""evaluate@<contestant>-<seed>: evaluated/<contestant>/<seed>/ with metrics, predictions and figures of test."""

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.colours import contestant_colour
from vit_vs_cnn.core.paths import PREPARED, evaluated, trained
from vit_vs_cnn.core.records import numbers_of
from vit_vs_cnn.data.checks import read_checks
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.evaluation.cost import peak_memory_mb
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.evaluation.results import write_evaluation
from vit_vs_cnn.evaluation.views import measure_views
from vit_vs_cnn.models.temperature import softmax
from vit_vs_cnn.models.trained import load_trained
from vit_vs_cnn.report.evaluation import save_evaluation_figures
from vit_vs_cnn.tracking.names import prefixed_metrics
from vit_vs_cnn.tracking.run import add_to_run
from vit_vs_cnn.training.device import choose_device
from vit_vs_cnn.training.results import read_summary


def run(settings: Settings, contestant: str, seed: int) -> None:
    """Measure a replicate of a contestant on test, once."""
    settings = with_tuned(settings.of_seed(seed), contestant)
    info, test = read_info(PREPARED), read_split(PREPARED, "test")
    device, batch_size = choose_device(settings.train), settings.evaluate.batch_size
    model = load_trained(settings, contestant, seed, info).to(device)
    logits = batch_predict(model.logits, test.images, batch_size, device, "predict")
    probabilities = softmax(logits, model.temperature.item())
    confidence, memory = settings.evaluate.confidence, peak_memory_mb(device)
    checks, summary = read_checks(PREPARED), read_summary(trained(contestant, seed))
    duplicates = tuple(sorted({*checks.test_rows_in_train, *(checks.test_rows_in_val if summary.refit else ())}))
    views = measure_views(model.logits, logits, test, settings.evaluate, device)
    evaluation = evaluate(probabilities, test, info.classes, confidence, softmax(logits), memory, duplicates, views)
    folder, metrics = evaluated(contestant, seed), evaluation.metrics
    write_evaluation(folder, evaluation)
    save_evaluation_figures(folder, contestant, evaluation, contestant_colour(settings.models, contestant))
    with add_to_run(trained(contestant, seed)) as tracked:
        dataset = tracked.log_dataset(info, "test", "testing")
        quality = numbers_of(metrics, {"confidence", "peak_memory_mb"})
        tracked.log_metrics(prefixed_metrics("test", quality), dataset=dataset)
        tracked.log_metrics({"cost/peak_memory_mb": memory})
        if views is not None:
            tracked.log_metrics(prefixed_metrics("views", numbers_of(views)), dataset=dataset)
        tracked.log_artifact(folder, "evaluation")
        found = (
            f"{metrics.accuracy:.2%} of {metrics.images:,} test images right "
            f"({100 * metrics.confidence:g} % interval {metrics.accuracy_low:.2%} to {metrics.accuracy_high:.2%}"
            + (f", by {metrics.groups:,} groups)" if metrics.groups is not None else ")")
        )
        tracked.describe(found)
    print(f"evaluate {contestant} seed {seed}: {found}")
