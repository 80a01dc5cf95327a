"""Trained contestants on their way into the registry."""

from vit_vs_cnn.registry.aliases import reconciled_aliases
from vit_vs_cnn.registry.audit import Decision
from vit_vs_cnn.registry.versions import CHALLENGER, Candidate, Registry, readable_store_errors


def register(name: str, candidates: list[Candidate]) -> dict[str, int]:
    """Make each candidate a version of the registered model `name`; the best by validation becomes `challenger`.

    A model that is registered already keeps its version. Returns the version of each contestant. Raises UserError
    where the store cannot be reached or does not have the training runs yet.
    """
    with readable_store_errors("`dvc repro register`"):
        registry = Registry(name)
        registry.create()
        versions = {each.contestant: registry.add(each) for each in candidates}
        best = max(candidates, key=lambda each: each.val_accuracy)
        target, reason = versions[best.contestant], f"{best.contestant} is the best by validation"
        with reconciled_aliases(registry) as aliases:
            holder = aliases.alias_targets.get(CHALLENGER)
            if holder != target:
                aliases.change(
                    Decision(action="registered", alias=CHALLENGER, origin=holder, target=target, reason=reason)
                )
    return versions
