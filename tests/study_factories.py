"""Plans and results of studies that tests make up: errors that follow a power law, on the same test images."""

import base64
from collections.abc import Mapping

import numpy as np

from vit_vs_cnn.studies.plan import Plan, PlannedRun
from vit_vs_cnn.studies.results import Replicate, Results, RunResult
from vit_vs_cnn.studies.settings import IMAGES, AxisValue, StudySettings, Values

WHOLE = 10_000
# Error after n images: the ViT is better with many, the CNN with few; they are level at 4,096 images.
LAWS = {"vit": (32.0, 0.625), "cnn": (2.0, 0.29166667)}


def planned(axes: Mapping[str, list[AxisValue]], seeds: tuple[int, ...] = (0, 1)) -> Plan:
    """A plan with a run for each point."""
    study = StudySettings.model_validate({"axes": axes, "seeds": list(seeds)})
    runs = [
        PlannedRun(
            name="made-up-" + "-".join(f"{axis}-{value}" for axis, value in point.items()),
            values=point,
            contestants=tuple(LAWS),
            overrides=study.overrides_at(point),
            settings="",
            seeds=seeds,
            epochs=3,
            trials=0,
            steps_share=1.0,
            train_images=_images(point),
            val_images=100,
            seconds=60.0,
        )
        for point in study.points()
    ]
    return Plan(
        study="made-up",
        given="made-up",
        digest=study.digest,
        preset="",
        data_name="pets",
        contestants=tuple(LAWS),
        axes=study.axes,
        same="steps",
        confidence=0.95,
        margin=0.01,
        classes=10,
        images=WHOLE,
        seconds_per_image=dict.fromkeys(LAWS, 0.001),
        runs=tuple(runs),
    )


def measured(run: PlannedRun, test_images: int = 2000, digest: str = "test") -> RunResult:
    """A result by LAWS; more epochs or seconds halve the error."""
    budget = float(run.values.get("epochs") or run.values.get("seconds") or 1)
    split = int(run.values.get("data.split_seed") or 0)
    difficulty = np.random.default_rng(split).random(test_images)
    replicates = []
    for contestant in run.contestants:
        a, b = LAWS[contestant]
        for seed in run.seeds:
            key = [split, seed, list(LAWS).index(contestant), run.train_images]
            noise = np.random.default_rng(key).normal(0, 0.05, test_images)
            error = min(0.9, a * run.train_images**-b / budget**0.5)
            right = difficulty + noise > error
            replicates.append(
                Replicate(
                    contestant=contestant,
                    timm=f"some_{contestant}",
                    seed=seed,
                    accuracy=float(right.mean()),
                    accuracy_low=float(right.mean()) - 0.01,
                    accuracy_high=float(right.mean()) + 0.01,
                    macro_f1=float(right.mean()),
                    negative_log_likelihood=0.3,
                    expected_calibration_error=0.02,
                    val_accuracy=float(right.mean()),
                    train_seconds=run.train_images / 100 * budget * (2 if contestant == "vit" else 1),
                    seconds_per_epoch=run.train_images / 100 * budget * (2 if contestant == "vit" else 1) / run.epochs,
                    epochs=run.epochs,
                    best_epoch=run.epochs,
                    steps=run.epochs * run.train_images // 100,
                    parameters=1000,
                    pretraining_images=0,
                    device="CPU, 2 threads",
                    collapsed=False,
                    still_rising=False,
                    attention={"cnn": 0.0, "hybrid": 0.05}.get(contestant, 0.1),
                    convolutions={"cnn": 1.0, "hybrid": 0.4}.get(contestant, 0.01),
                    test_images=test_images,
                    correct=base64.b64encode(np.packbits(right).tobytes()).decode(),
                )
            )
    return RunResult(
        name=run.name,
        overrides=run.overrides,
        settings=run.settings,
        train_images=run.train_images,
        val_images=run.val_images,
        test_digest=digest,
        groups=None,
        findings={},
        replicates=tuple(replicates),
        seconds=50.0,
    )


def results_of(plan: Plan, failed: Mapping[str, str] | None = None) -> Results:
    """The results of all runs of a plan but those that failed."""
    done = {run.name: measured(run) for run in plan.runs if run.name not in (failed or {})}
    return Results(plan, done, dict(failed or {}))


def _images(point: Values) -> int:
    return round(WHOLE * float(point.get(IMAGES) or 1))
