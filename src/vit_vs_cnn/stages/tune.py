"""tune@<model>: tuned/<model>.yaml with the recipe that training uses."""

from vit_vs_cnn.config import Settings
from vit_vs_cnn.errors import UserError
from vit_vs_cnn.layout import tuned
from vit_vs_cnn.tuning.recipe import write_recipe


def run(settings: Settings, name: str) -> None:
    """Without trials, write the contestant's own recipe."""
    if settings.tune.trials > 0:
        raise UserError("tune.trials: this version cannot search yet; set it to 0 to train the recipe as it is.")
    write_recipe(settings, name, tuned(name))
