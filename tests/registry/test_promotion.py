"""Promotion, rollback and their record in a real registry."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from factories import IMAGES, REGISTRY, add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import GateRejectedError, GateUndecidedError, UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.registry.audit import Decision, open_audit_log
from vit_vs_cnn.registry.promotion import champion_lineage, gate_report, promote, propose, rollback
from vit_vs_cnn.registry.versions import CHAMPION, Registry


@pytest.fixture
def registry(project: Path) -> Registry:
    return new_registry()


def proposed(registry: Registry, version: int, settings: Settings) -> Decision:
    proposal = propose(registry, str(version), settings, PREPARED)
    assert proposal is not None
    return proposal


def history(registry: Registry) -> list[Decision]:
    with open_audit_log(registry) as log:
        return log.decisions()


def moves_and_refusals(registry: Registry) -> list[tuple[str, int | None, int | None]]:
    return [(decision.action, decision.previous_version, decision.version) for decision in history(registry)]


def test_from_the_first_champion_to_a_rollback(settings: Settings, registry: Registry) -> None:
    good = add_version(settings, registry, range(40))
    worse = add_version(settings, registry, range(80))
    better = add_version(settings, registry, range(20))
    first = proposed(registry, good, settings)
    assert first.previous_version is None
    assert first.failed == ""
    promote(registry, first)
    assert registry.aliases()[CHAMPION] == good

    refused = proposed(registry, worse, settings)
    assert refused.failed == (
        "accuracy beside the champion, every class beside the champion, log-likelihood beside the champion"
    )
    with pytest.raises(GateRejectedError, match="version 2 is refused: accuracy beside the champion, every class"):
        promote(registry, refused)
    assert registry.aliases()[CHAMPION] == good

    promote(registry, proposed(registry, better, settings), reason="twice as good")
    assert registry.aliases()[CHAMPION] == better
    assert propose(registry, str(better), settings, PREPARED) is None
    rollback(registry, reason="wrong at night")
    assert registry.aliases()[CHAMPION] == good
    with pytest.raises(UserError, match="version 1 is the first champion; there is no earlier one"):
        rollback(registry)

    assert moves_and_refusals(registry) == [
        ("promoted", None, good),
        ("refused", good, worse),
        ("promoted", good, better),
        ("rolled back", better, good),
    ]
    assert [decision.reason for decision in history(registry)] == ["", "", "twice as good", "wrong at night"]
    assert registry.version(worse).tags["gate.decision"].startswith("refused: accuracy beside the champion")


def test_the_gate_says_which_training_it_judges_and_how_far_the_others_lie_apart(
    settings: Settings, registry: Registry
) -> None:
    old, alone, best = (add_version(settings, registry, range(wrong)) for wrong in (40, 20, 10))
    registry.tag(alone, {"seed": "3", "seeds": "1", "accuracy_mean": "0.9667"})
    registry.tag(best, {"seed": "2", "seeds": "5", "accuracy_mean": "0.9712", "accuracy_std": "0.0123"})
    of_five = (
        ", seed 2, of 5 trainings the best by validation; all of them on test: mean 97.12%, standard deviation 1.23"
    )
    replicates = {old: "", alone: ", seed 3, its only training", best: f"{of_five} points"}
    for version, replicate in replicates.items():
        proposal = proposed(registry, version, settings)
        said = f"version {version} (vit{replicate}), "
        assert f"{registry.name}: {said}" in gate_report(registry, proposal, markdown=True)
        promote(registry, proposal)
        assert history(registry)[-1].judged.startswith(said)


def test_force_is_recorded_as_forced_with_the_rules_that_it_overrode(settings: Settings, registry: Registry) -> None:
    promote(registry, proposed(registry, add_version(settings, registry, range(20)), settings))
    worse = add_version(settings, registry, range(80))
    promote(registry, proposed(registry, worse, settings), force=True, reason="a demonstration")
    assert registry.aliases()[CHAMPION] == worse
    last = history(registry)[-1]
    assert last.forced
    assert last.reason == "a demonstration"
    assert {outcome.rule for outcome in last.rules if outcome.state == "fail"} == {
        "accuracy beside the champion",
        "every class beside the champion",
        "log-likelihood beside the champion",
    }


def test_force_where_the_gate_passes_is_not_recorded_as_forced(settings: Settings, registry: Registry) -> None:
    promote(registry, proposed(registry, add_version(settings, registry, range(20)), settings), force=True, reason="x")
    assert not history(registry)[-1].forced


def test_of_two_promotions_at_once_one_wins_and_both_are_recorded(settings: Settings, registry: Registry) -> None:
    promote(registry, proposed(registry, add_version(settings, registry, range(40)), settings))
    one = proposed(registry, add_version(settings, registry, range(20)), settings)
    other = proposed(registry, add_version(settings, registry, range(10)), settings)
    promote(registry, one)
    with pytest.raises(GateRejectedError, match="the champion became version 2 while version 3 was judged against 1"):
        promote(registry, other)
    assert registry.aliases()[CHAMPION] == 2
    assert moves_and_refusals(registry)[1:] == [("promoted", 1, 2), ("overtaken", 1, 3)]


def test_a_rollback_skips_what_was_rolled_back_before(settings: Settings, registry: Registry) -> None:
    for wrong in (50, 40, 30):
        promote(registry, proposed(registry, add_version(settings, registry, range(wrong)), settings))
    assert rollback(registry).version == 2
    assert rollback(registry).version == 1
    assert rollback(registry, "3").version == 3
    assert rollback(registry).version == 1


@pytest.mark.parametrize("deleted", [True, False])
def test_a_rollback_skips_a_champion_whose_version_was_deleted(
    settings: Settings, registry: Registry, deleted: bool
) -> None:
    for wrong in (50, 40, 30):
        promote(registry, proposed(registry, add_version(settings, registry, range(wrong)), settings))
    if deleted:
        registry.client.delete_model_version(REGISTRY, "2")
    assert rollback(registry).version == (1 if deleted else 2)


def test_the_line_of_champions() -> None:
    def made(*moves: tuple[str, int | None]) -> list[int]:
        decisions = [
            Decision(action=action, alias=CHAMPION, previous_version=None, version=version)  # type: ignore[arg-type]
            for action, version in moves
        ]
        return champion_lineage(decisions)

    assert made() == []
    assert made(("promoted", 1), ("refused", 2), ("promoted", 3)) == [1, 3]
    assert made(("promoted", 1), ("promoted", 3), ("rolled back", 1), ("promoted", 4)) == [1, 4]
    assert made(("promoted", 1), ("changed by hand", 2), ("changed by hand", None), ("promoted", 5)) == [5]


def test_versions_that_saw_other_test_images_are_measured_again_on_the_current_ones(
    settings: Settings, registry: Registry, prepared: DatasetInfo, tmp_path: Path
) -> None:
    folders = []
    for name in settings.models:
        model = settings.models[name]
        network = create_model(model, 3, prepared.image_size).eval()
        example = np.zeros((2, 16, 16, 3), np.uint8)
        trained = TrainedModel(network, preprocess_for(model, prepared))
        export_model(trained, name, model, prepared, example, tmp_path / name)
        folders.append(tmp_path / name)
    add_version(settings, registry, [], test_digest="old", model=folders[0])
    add_version(settings, registry, [], test_digest="new", model=folders[1])
    promote(registry, proposed(registry, 1, settings))
    proposal = proposed(registry, 2, settings)
    assert "all are measured again on data/prepared/test" in gate_report(registry, proposal)
    # By their records both are right on all 600 images; the untrained networks are not, on the 24 that there are.
    (accuracy,) = (outcome for outcome in proposal.rules if outcome.rule == "accuracy")
    assert accuracy.measured.endswith("of 24 images")
    assert accuracy.value < 0.9


def test_without_images_to_measure_on_it_says_what_to_name(settings: Settings, registry: Registry) -> None:
    add_version(settings, registry, [], test_digest="old")
    add_version(settings, registry, [], test_digest="new")
    promote(registry, proposed(registry, 1, settings))
    with pytest.raises(UserError, match=r"other test images than the champion.*--data runs/NAME/data/prepared"):
        propose(registry, "2", settings, PREPARED)


def test_the_rules_are_those_of_params(
    make_settings: Callable[..., Settings], settings: Settings, registry: Registry
) -> None:
    version = add_version(settings, registry, range(IMAGES // 10))
    strict = make_settings({"gate": {"min_accuracy": 0.95}})
    assert proposed(registry, version, settings).failed == ""
    assert proposed(registry, version, strict).failed == "accuracy"


@pytest.fixture
def undecided(settings: Settings, registry: Registry) -> Decision:
    """The proposal of a version that is right on as many images as the champion, but on others."""
    promote(registry, proposed(registry, add_version(settings, registry, range(6)), settings))
    return proposed(registry, add_version(settings, registry, range(6, 12)), settings)


def test_what_the_test_images_cannot_tell_is_undecided_and_changes_nothing(
    registry: Registry, undecided: Decision
) -> None:
    assert undecided.failed == ""
    report = gate_report(registry, undecided)
    assert "beside the champion, version 1: undecided." in report
    assert "cannot exclude a loss of 1.29 points of accuracy" in report
    with pytest.raises(GateUndecidedError, match=r"version 2: These 600 test images cannot .* Nothing changed"):
        promote(registry, undecided)
    assert registry.aliases()[CHAMPION] == 1
    last = history(registry)[-1]
    assert (last.action, last.moves, last.undecided) == ("undecided", False, undecided.undecided)
    assert registry.version("2").tags["gate.decision"] == "undecided"


def test_a_person_accepts_what_is_undecided_and_that_is_recorded(registry: Registry, undecided: Decision) -> None:
    promote(registry, undecided, accept=True, reason="looked at all 12")
    assert registry.aliases()[CHAMPION] == 2
    last = history(registry)[-1]
    assert (last.summary, last.accepted, last.forced, last.reason) == (
        "promoted, accepted",
        True,
        False,
        "looked at all 12",
    )
    assert [outcome.state for outcome in last.rules if outcome.rule == "accuracy beside the champion"] == ["undecided"]


def test_accepting_does_not_override_a_refusal(settings: Settings, registry: Registry) -> None:
    promote(registry, proposed(registry, add_version(settings, registry, range(20)), settings))
    with pytest.raises(GateRejectedError, match="version 2 is refused"):
        promote(registry, proposed(registry, add_version(settings, registry, range(80)), settings), accept=True)
    assert registry.aliases()[CHAMPION] == 1


def test_many_small_losses_do_not_pass_beside_the_best_champion_so_far(
    make_settings: Callable[..., Settings], registry: Registry
) -> None:
    settings = make_settings({"gate": {"margin": 0.02}})
    for wrong in (20, 25):
        promote(registry, proposed(registry, add_version(settings, registry, range(wrong)), settings))
    drifting = proposed(registry, add_version(settings, registry, range(34)), settings)
    states = {outcome.rule: outcome.state for outcome in drifting.rules}
    assert states["accuracy beside the champion"] == "fail"
    promote(registry, drifting, force=True, reason="a test")
    drifting = proposed(registry, add_version(settings, registry, range(36)), settings)
    states = {outcome.rule: outcome.state for outcome in drifting.rules}
    assert states["accuracy beside the champion"] == "pass"
    assert states["accuracy beside the best champion so far"] == "fail"
    assert "and the best champion so far, version 1" in drifting.judged


def test_a_champion_that_was_rolled_back_is_not_the_best_so_far(settings: Settings, registry: Registry) -> None:
    for wrong in (40, 10):
        promote(registry, proposed(registry, add_version(settings, registry, range(wrong)), settings))
    rollback(registry, reason="wrong on night shots")
    later = proposed(registry, add_version(settings, registry, range(30)), settings)
    assert later.failed == ""
    assert "best champion so far" not in later.judged


def test_the_looks_at_the_test_images_are_counted(settings: Settings, registry: Registry) -> None:
    looks = []
    for wrong, digest in ((40, "same"), (80, "same"), (20, "same")):
        proposal = proposed(registry, add_version(settings, registry, range(wrong), test_digest=digest), settings)
        assert f"Decision {proposal.look} of the gate that looks at these test images." in gate_report(
            registry, proposal
        )
        looks.append(proposal.look)
        try:
            promote(registry, proposal)
        except GateRejectedError:
            looks[-1] *= -1
    assert looks == [1, -2, 3]
    assert [decision.look for decision in history(registry)] == [1, 2, 3]
    assert {decision.test_digest for decision in history(registry)} == {"same"}


def test_a_version_is_judged_by_the_metric_that_its_run_chose_by(settings: Settings, registry: Registry) -> None:
    promote(registry, proposed(registry, add_version(settings, registry, range(20)), settings))
    worse = add_version(settings, registry, range(80))
    registry.tag(worse, {"select_by": "macro_f1"})
    assert "macro F1 beside the champion" in proposed(registry, worse, settings).failed
    registry.tag(worse, {"select_by": "written by anybody"})
    assert "accuracy beside the champion" in proposed(registry, worse, settings).failed


def test_the_metric_that_models_are_chosen_by_is_the_one_that_the_gate_compares(
    make_settings: Callable[..., Settings], registry: Registry
) -> None:
    for select_by, rule in (
        ("balanced_accuracy", "balanced accuracy beside the champion"),
        ("macro_f1", "macro F1 beside the champion"),
        ("nll", "log-likelihood beside the champion"),
    ):
        settings = make_settings({"select_by": select_by})
        promote(registry, proposed(registry, add_version(settings, registry, range(20)), settings), force=True)
        worse = proposed(registry, add_version(settings, registry, range(80)), settings)
        assert rule in worse.failed
