"""Whether a search can be set up at all, found out in a moment and before anything runs."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.models.build import check_model
from vit_vs_cnn.training.optimization import check_optimizer
from vit_vs_cnn.tuning.sampling import make_pruner, make_sampler
from vit_vs_cnn.tuning.space import with_values


def check_search(settings: Settings, name: str) -> None:
    """Set up sampler and pruner, and build the network without memory at each end of what changes it.

    Raises UserError where one of them cannot be.
    """
    tune = settings.tune
    make_sampler(tune.sampler, settings.seed)
    make_pruner(tune.pruner, tune.epochs or settings.train.epochs)
    for path, dimension in settings.space(name).items():
        for end in dimension.ends():
            key_path = f"tune.space.{path}: {end!r}: models.{name}"
            model = with_values(settings, name, {path: end}, key_path).model(name)
            if path.startswith("model."):
                check_model(model, 10, settings.data.image_size, key_path)
            if path == "optimizer.name":
                check_optimizer(model.recipe.optimizer.name, key_path)
