"""train@<contestant>-<seed>: trained/<contestant>/<seed>/ with weights, exported model, history and summary."""

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import duration
from vit_vs_cnn.core.paths import PREPARED, trained
from vit_vs_cnn.data.dataset import DIGESTS, read_info, read_split
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import save_weights
from vit_vs_cnn.tracking.names import contestant_params
from vit_vs_cnn.tracking.run import start_run, system_metrics
from vit_vs_cnn.training.checkpoint import fingerprint, open_checkpoint
from vit_vs_cnn.training.contestant import announce, prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch, epoch_metrics, refit_metrics, summary_metrics, write_history
from vit_vs_cnn.training.setup import node_rank


def run(settings: Settings, contestant: str, seed: int) -> None:
    """Train a replicate of a contestant on train, choose the epoch on val, record it; further nodes only share it."""
    settings = with_tuned(settings.of_seed(seed), contestant)
    info, train, val = read_info(PREPARED), read_split(PREPARED, "train"), read_split(PREPARED, "val")
    job = prepare_contestant(settings, contestant, info, (train, val))
    if (rank := node_rank(job.plan)) > 0:
        with open_checkpoint(f"{fingerprint(job)}-node-{rank}") as checkpoint:
            train_contestant(job, checkpoint, lambda _: None)
        print(f"node {rank} has done its share; the results are on the first node")
        return
    announce(job)
    with (
        open_checkpoint(fingerprint(job)) as checkpoint,
        start_run(settings, "train", contestant, checkpoint.run_key(), part=str(seed)) as tracked,
    ):
        plan = job.plan
        tracked.log_params(contestant_params(settings, contestant))
        tracked.set_tags(
            {"seed": seed, "device": plan.device_name, "precision": plan.precision, "compiled": plan.compiled}
        )
        tracked.log_training_data(info)

        def log_epoch(epoch: Epoch) -> None:
            tracked.log_metrics(epoch_metrics(epoch) | system_metrics(), step=epoch.epoch)

        def log_refit_epoch(epoch: Epoch) -> None:
            tracked.log_metrics(refit_metrics(epoch), step=epoch.epoch)

        training = train_contestant(job, checkpoint, log_epoch, log_refit_epoch)
        folder, summary = trained(contestant, seed), training.summary
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(training.model, folder / "weights.safetensors")
        save_weights(training.last, folder / "last.safetensors")
        export_model(training.model, contestant, job.model, info, val.images[:2], folder / "model")
        write_history(training.history, folder / "history.csv")
        summary.write(folder / "training.json")
        tracked.log_metrics(summary_metrics(summary), step=summary.epochs)
        tracked.log_artifact(folder / "history.csv")
        tracked.log_artifact(folder / "training.json")
        for split in (train, val) if settings.train.refit else (train,):
            if split.folder is not None and split.digests is not None:
                tracked.log_artifact(split.folder / DIGESTS, f"training_images/{split.folder.name}")
        tags = {"contestant": contestant, "seed": str(seed), "timm": summary.timm, "data.digest": info.digest}
        params = summary.model_dump()
        tracked.log_model(folder / "model", contestant, "image-classifier", params, tags, summary.best_epoch)
        found = (
            f"{summary.val_accuracy:.2%} of {len(val):,} validation images right in epoch {summary.best_epoch} of "
            f"{summary.epochs}{' of the first fit' if summary.refit else ''}, {duration(summary.seconds)} of training"
        )
        tracked.describe(found)
        tracked.write_ref(folder)
    print(f"train {contestant} seed {seed}: {found}")
