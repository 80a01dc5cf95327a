"""explain@<model>: reports/explain/<model>/ with pictures of what a contestant looks at."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.tuned import with_tuned
from vit_vs_cnn.core.paths import PREPARED, evaluated, explained, trained
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.explain.explanation import explain_model
from vit_vs_cnn.explain.samples import confident_mistakes, shared_images
from vit_vs_cnn.models.trained import load_trained
from vit_vs_cnn.report.explanation import write_explanation
from vit_vs_cnn.report.style import contestant_colour
from vit_vs_cnn.tracking.run import add_to_run


def run(settings: Settings, model: str) -> None:
    """Explain contestant `model` on test images that all contestants share, and on its own mistakes."""
    settings = with_tuned(settings, model)
    info, test = read_info(PREPARED), read_split(PREPARED, "test")
    predictions = read_evaluation(evaluated(model)).predictions
    count = settings.explain.images
    explanation = explain_model(
        load_trained(settings, model, info),
        test,
        predictions,
        shared=shared_images(test.labels, count, info.split_seed),
        mistakes=confident_mistakes(predictions, count // 2),
    )
    write_explanation(explanation, info.classes, contestant_colour(settings.models, model), explained(model))
    with add_to_run(trained(model)) as tracked:
        tracked.log_artifact(explained(model), "explanation")
