"""The training loop."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.data.augment.batch import augment
from vit_vs_cnn.data.augment.geometry import alternating_flips
from vit_vs_cnn.data.augment.mix import mix
from vit_vs_cnn.data.loader import ResidentImages, Share
from vit_vs_cnn.models.build import classifier_layers
from vit_vs_cnn.training.checkpoint import Checkpoint, load_on_all_nodes
from vit_vs_cnn.training.gradients import Gradients, balanced_weights
from vit_vs_cnn.training.optimization import (
    body_parameters,
    create_ema,
    create_optimizer,
    learning_rate,
    set_learning_rate,
)
from vit_vs_cnn.training.results import Epoch, best_epoch
from vit_vs_cnn.training.setup import (
    TrainingJob,
    fastest_attention,
    gradient_checkpointing,
    is_compile_error,
    is_out_of_memory,
)
from vit_vs_cnn.training.validation import Scores, plain_batches, recompute_statistics, validate


class Trainer:
    """One training of one contestant; `run` reads top to bottom.

    `fabric` is launched. Of several processes each takes its share of every batch, and the first one of each node saves
    the node's checkpoint and reports the epochs; all nodes start from the checkpoint of the first.
    """

    def __init__(self, fabric: Fabric, job: TrainingJob) -> None:
        self.fabric, self.job, self.recipe, self.budget = fabric, job, job.model.recipe, job.settings.train
        self.device = fabric.device
        self.share = Share(fabric.global_rank, fabric.world_size)
        self.quiet = job.quiet or not fabric.is_global_zero
        self.train, self.val = (ResidentImages(split, self.device) for split in (job.train, job.val))
        self.epochs = job.refit_epochs or self.budget.epochs
        self.name = f"{'refit' if job.refit_epochs else 'train'} {job.contestant}"
        self.steps = self.train.steps(self.recipe.batch_size)
        self.network = job.network.to(self.device).to(memory_format=torch.channels_last)
        self.preprocess, self.classes = job.preprocess.to(self.device), len(job.info.classes)
        self.ema = create_ema(self.network, self.recipe)
        self.optimizer = create_optimizer(self.network, self.recipe, f"{job.key_path}.recipe")
        # Only the steps are compiled: validation and what comes after use the network itself.
        stepped: Any = torch.compile(self.network) if job.plan.compiled else self.network
        self.stepper, self.fabric_optimizer = fabric.setup(stepped, self.optimizer)
        weights = balanced_weights(job.train.labels, self.classes).to(self.device)
        self.drawn_by = weights if self.recipe.balance == "sampler" else None
        weighted_by = weights if self.recipe.balance == "weights" else None
        kept = self.network.buffers() if self.budget.checkpoint_gradients else ()
        self.gradients = Gradients(
            fabric, self.stepper, self.fabric_optimizer, self.recipe, weighted_by, job.key_path, kept
        )
        self.body = body_parameters(self.network)

    def run(self, checkpoint: Checkpoint, on_epoch: Callable[[Epoch], None]) -> list[Epoch]:
        """Train to the end of the budget, from the checkpoint where there is one, and return the history.

        `on_epoch` is called after each epoch of this process. At the end the checkpoint has the weights of the best
        epoch as `best`. Raises UserError where the loss is not finite or memory does not suffice.
        """
        history, best = self._restore(checkpoint)
        bar = tqdm(
            total=self.epochs * self.steps,
            initial=len(history) * self.steps,
            desc=self.name,
            unit="step",
            **({"disable": True} if self.quiet else bar_options()),
        )
        checkpointing = gradient_checkpointing(self.network, self.budget.checkpoint_gradients, self.job.key_path)
        with bar, fastest_attention(self.network, self.job.plan), checkpointing:
            for epoch in range(len(history) + 1, self.epochs + 1):
                if self._patience_is_exhausted(history):
                    break
                row = self._run_epoch(epoch, history[-1].elapsed_seconds if history else 0.0, bar)
                history.append(row)
                if self._best(history) is row:
                    best = _copy_weights(self._validated_network())
                if self.fabric.local_rank == 0:
                    self._save(checkpoint, history, best)
                    on_epoch(row)
                if not self.quiet:
                    bar.write(self._line(row))
        return history

    def _run_epoch(self, epoch: int, elapsed_seconds: float, bar: "tqdm[Any]") -> Epoch:
        start = time.perf_counter()
        try:
            train_loss, train_accuracy = self._train_epoch(epoch, bar)
            train_seconds = time.perf_counter() - start
            scores = self._validate(epoch)
        except RuntimeError as error:
            raise self._readable(error) from error
        self._require_finite(train_loss, scores.loss, epoch)
        seconds = time.perf_counter() - start
        return Epoch(
            epoch=epoch,
            elapsed_seconds=elapsed_seconds + seconds,
            epoch_seconds=seconds,
            learning_rate=self._learning_rate(epoch * self.steps),
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=scores.loss,
            val_accuracy=scores.accuracy,
            val_balanced_accuracy=scores.balanced_accuracy,
            val_macro_f1=scores.macro_f1,
            val_top_share=scores.top_share,
            images_per_second=self.steps * min(self.recipe.batch_size, len(self.train)) / train_seconds,
        )

    def _train_epoch(self, epoch: int, bar: "tqdm[Any]") -> tuple[float, float]:
        recipe, seed = self.recipe, self.job.settings.seed
        flips = None
        if recipe.augment.alternating_flip:
            flips = alternating_flips(len(self.train), epoch, seed).to(self.device)
        # Every epoch has its own seeds, so that one which starts from a checkpoint draws what it would have drawn.
        epoch_seed = (seed * 1_000_003 + epoch * 7_919) % 2**62
        torch.manual_seed(epoch_seed)
        order = torch.Generator().manual_seed(epoch_seed)
        draws = torch.Generator(self.device).manual_seed(epoch_seed + 1 + self.share.rank)
        frozen = self._body_is_frozen(epoch)
        self._set_training_mode(frozen)
        totals, shown = _Totals(self.device), time.perf_counter()
        batches = self.train.shuffled(recipe.batch_size, order, self.share, self.drawn_by)
        for updates, (images, labels, indices) in enumerate(batches, start=(epoch - 1) * self.steps + 1):
            mirrored = None if flips is None else flips[indices]
            inputs = self.preprocess(augment(images, recipe.augment, draws, mirrored))
            targets = labels
            if recipe.augment.mixup or recipe.augment.cutmix:
                one_hot = functional.one_hot(labels, self.classes).float()
                inputs, targets = mix(inputs, one_hot, recipe.augment, draws)
            logits, loss = self.gradients.compute(inputs, targets)
            if frozen:
                for parameter in self.body:
                    parameter.grad = None  # the optimizer passes over it
            if recipe.clip_grad:
                # An error for a norm that is not finite would read it from the device at every step.
                self.fabric.clip_gradients(
                    self.stepper, self.fabric_optimizer, max_norm=recipe.clip_grad, error_if_nonfinite=False
                )
            set_learning_rate(self.optimizer, self._learning_rate(updates - 1))
            self.fabric_optimizer.step()
            if self.ema is not None:
                self.ema.update(self.network, step=updates)
            totals.add(loss * len(labels), logits, labels)
            bar.update()
            if not bar.disable and time.perf_counter() - shown > 1.0:
                shown = time.perf_counter()
                bar.set_postfix_str(f"epoch {epoch}, {totals}")
        self._average_statistics()
        return totals.means(self.fabric)

    def _body_is_frozen(self, epoch: int) -> bool:
        return self.job.model.freeze_backbone or epoch <= self.recipe.head_epochs

    def _set_training_mode(self, frozen: bool) -> None:
        self.stepper.train()
        if frozen:
            # Batch norm's statistics would change, and dropout would act, in layers that are not trained.
            self.network.eval()
            classifier_layers(self.network).train()

    def _learning_rate(self, updates: int) -> float:
        return learning_rate(self.recipe, self.budget.epochs, self.steps, updates)

    def _average_statistics(self) -> None:
        """Average batch norm's means and variances over the processes: each has seen its own images only."""
        if self.share.processes > 1:
            for network in (self.network, self._validated_network()):
                for buffer in network.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self.fabric.all_reduce(buffer))  # type: ignore[arg-type]

    def _validate(self, epoch: int) -> Scores:
        network = self._validated_network().eval()
        if not self._body_is_frozen(epoch):
            with self.fabric.autocast():
                recompute_statistics(network, plain_batches(self.train, self.preprocess, self.job.settings.seed))
        batches = self.val.in_order(max(self.recipe.batch_size, 256), self.share)
        return validate(lambda images: network(self.preprocess(images)), batches, self.classes, self.fabric)

    def _validated_network(self) -> nn.Module:
        """The averaged weights where the recipe averages, the current ones otherwise."""
        averaged: nn.Module | None = self.ema.module if self.ema is not None else None
        return averaged or self.network

    def _restore(self, checkpoint: Checkpoint) -> tuple[list[Epoch], dict[str, Tensor]]:
        state, history = load_on_all_nodes(checkpoint, self.job, self.fabric)
        if not history:
            return [], {}
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.gradients.micro_batch = state["micro_batch"]
        return history, state["best"]

    def _save(self, checkpoint: Checkpoint, history: list[Epoch], best: dict[str, Tensor]) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "precision": self.fabric.strategy.precision.state_dict(),  # the scale of fp16's gradients
            "best": best,
            "micro_batch": self.gradients.micro_batch,
        }
        checkpoint.save(state, history)

    def _best(self, history: list[Epoch]) -> Epoch:
        return history[-1] if self.job.refit_epochs else best_epoch(history, self.job.settings.select_by)

    def _patience_is_exhausted(self, history: list[Epoch]) -> bool:
        patience = self.budget.patience
        return patience is not None and bool(history) and len(history) - self._best(history).epoch >= patience

    def _require_finite(self, train_loss: float, val_loss: float, epoch: int) -> None:
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            recipe = f"{self.job.key_path}.recipe"
            raise UserError(
                f"{self.job.key_path}: the loss is not finite any more in epoch {epoch}; lower {recipe}.optimizer.lr "
                f"(now {self.recipe.optimizer.lr:g}), set {recipe}.clip_grad to 1.0, or train.precision to '32-true'."
            )

    def _readable(self, error: RuntimeError) -> Exception:
        if self.job.plan.compiled and is_compile_error(error):
            # Dynamo's own first line names only the backend; what failed is inside.
            cause = getattr(error, "inner_exception", error)
            reason = f"{type(cause).__name__}: {first_line(cause)}"
            return UserError(f"train.compile: torch.compile does not work here ({reason}); set it to false.")
        if not is_out_of_memory(error):
            return error
        parts = f"parts of {self.gradients.micro_batch} of {self.recipe.batch_size} images"
        return UserError(
            f"{self.job.key_path}: memory does not suffice on {self.device}, though gradients were summed over {parts}"
            f"; lower {self.job.key_path}.recipe.batch_size or {self.job.key_path}.input_size."
        )

    def _line(self, row: Epoch) -> str:
        epochs, validation = self.epochs, "" if self.job.refit_epochs else f"val {row.val_accuracy:6.2%}  "
        return (
            f"{self.name}  epoch {row.epoch:>{len(str(epochs))}}/{epochs}  loss {row.train_loss:.3f}  {validation}"
            f"{row.images_per_second:,.0f} images/s  "
            f"left {row.elapsed_seconds / row.epoch * (epochs - row.epoch):,.0f} s"
        )


class _Totals:
    """Loss and correct predictions, summed over images.

    The sums stay on the device: reading them at every step would wait for the device at every step.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss, self.correct = torch.zeros((), device=device), torch.zeros((), device=device)
        self.images = 0

    def __str__(self) -> str:
        return f"loss {self.loss.item() / self.images:.3f}, acc {self.correct.item() / self.images:.1%}"

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add the summed loss of a batch, and its correct predictions."""
        self.loss += loss
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def means(self, fabric: Fabric) -> tuple[float, float]:
        """Mean loss and accuracy over the images of all processes."""
        images = torch.tensor(self.images, device=self.loss.device, dtype=torch.float64)
        sums = torch.stack([self.loss.double(), self.correct.double(), images])
        loss, correct, count = torch.as_tensor(fabric.all_reduce(sums, reduce_op="sum")).tolist()
        return loss / count, correct / count


def _copy_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
