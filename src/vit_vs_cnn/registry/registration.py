"""Registration: the trained contestants become versions of the registered model, the best of them challenger."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.tuned import with_tuned
from vit_vs_cnn.core.paths import evaluated, trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.results import read_cost, read_evaluation
from vit_vs_cnn.registry.audit import Decision, open_audit_log
from vit_vs_cnn.registry.card import version_tags, write_card
from vit_vs_cnn.registry.versions import CHALLENGER, Registry, registered_name, registry_errors
from vit_vs_cnn.tracking.lineage import lineage_tags
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.training.results import read_summary


def register(settings: Settings, info: DatasetInfo) -> tuple[dict[str, int], str]:
    """Make each trained contestant a version; the best by validation becomes challenger.

    Returns the version of each contestant, and the contestant that is challenger. A model that is registered already
    keeps its version. Raises UserError where the store is unreachable or does not have the training runs yet.
    """
    lineage = lineage_tags()
    results = {
        contestant: (
            read_summary(trained(contestant)),
            read_evaluation(evaluated(contestant)),
            read_cost(contestant),
        )
        for contestant in settings.models
    }
    best = max(results, key=lambda contestant: results[contestant][0].val_accuracy)
    versions: dict[str, int] = {}
    with registry_errors("when it answers, run `vit-vs-cnn sync` and then `dvc repro register`"):
        registry = Registry(registered_name(settings.data.name))
        registry.create()
        for contestant, (summary, evaluation, cost) in results.items():
            folder = trained(contestant)
            tags = version_tags(folder / "model", info, summary, evaluation, cost, lineage)
            card = write_card(with_tuned(settings, contestant), contestant, info, summary, evaluation, cost, lineage)
            versions[contestant] = registry.add(contestant, read_ref(folder), tags, card)
        with open_audit_log(registry) as log:
            previous, version = registry.aliases().get(CHALLENGER), versions[best]
            if previous != version:
                decision = Decision(action="registered", alias=CHALLENGER, previous_version=previous, version=version)
                log.move(decision.model_copy(update={"reason": f"{best} is the best by validation"}))
    return versions, best
