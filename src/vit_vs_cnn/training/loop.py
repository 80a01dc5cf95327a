"""The training loop."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from tqdm import tqdm

from vit_vs_cnn.config.schema import ModelSettings, TrainSettings
from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.augment.batch import Augment
from vit_vs_cnn.data.augment.geometry import alternating_flips
from vit_vs_cnn.data.augment.mix import mix
from vit_vs_cnn.data.loader import ResidentImages, Share
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.training.checkpoint import CheckpointFile
from vit_vs_cnn.training.device import fastest_attention
from vit_vs_cnn.training.optimization import create_ema, create_optimizer, create_scheduler
from vit_vs_cnn.training.plan import Plan
from vit_vs_cnn.training.results import Epoch

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    """The weights of the best epoch by validation, and the history of all."""

    weights: Weights
    best_epoch: int
    history: list[Epoch]


def finished(checkpoint: CheckpointFile) -> Result:
    """The result of a training that another process has brought to its end. Raises FileNotFoundError without one."""
    found = checkpoint.load()
    if found is None:
        raise FileNotFoundError(f"{checkpoint.folder} holds no checkpoint.")
    state, history = found
    return Result(state["best"], _best_epoch(history), history)


class Trainer:
    """One training of one contestant; `run` reads top to bottom.

    `fabric` is launched. Where it has several processes, each takes its share of every batch, and the first one keeps
    the checkpoint and tells of the epochs.
    """

    def __init__(
        self,
        fabric: Fabric,
        plan: Plan,
        network: nn.Module,
        preprocess: Preprocess,
        num_classes: int,
        model: ModelSettings,
        budget: TrainSettings,
        seed: int,
        name: str,
        *,
        quiet: bool = False,
    ) -> None:
        self.plan = plan
        self.share = Share(fabric.global_rank, fabric.world_size)
        self.quiet = quiet or not fabric.is_global_zero
        self.where = f"models.{name}"
        self.name, self.model, self.budget, self.seed = name, model, budget, seed
        self.num_classes = num_classes
        self.fabric, self.device = fabric, fabric.device
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.preprocess = preprocess.to(self.device)
        self.augment = Augment(model.recipe.augment)
        self.ema = create_ema(self.network, model.recipe)
        self.optimizer: Optimizer = create_optimizer(self.network, model.recipe, f"{self.where}.recipe")
        # Only the steps are compiled: validation and what comes after go through the network itself.
        stepped: Any = torch.compile(self.network) if plan.compiled else self.network
        self.stepper, self.fabric_optimizer = fabric.setup(stepped, self.optimizer)
        self.micro_batch = math.ceil(model.recipe.batch_size / fabric.world_size)

    def run(
        self,
        train: ResidentImages,
        val: ResidentImages,
        checkpoint: CheckpointFile,
        on_epoch: Callable[[Epoch], None],
    ) -> Result:
        """Train to the end of the budget, from the checkpoint where there is one.

        `on_epoch` is called after each epoch of this process. Raises UserError where the loss is not finite or
        memory does not suffice.
        """
        recipe = self.model.recipe
        steps = train.steps(recipe.batch_size)
        scheduler = create_scheduler(self.optimizer, recipe, self.budget.epochs, steps)
        history, best = self._restore(checkpoint)
        bar = tqdm(
            total=self.budget.epochs * steps,
            initial=len(history) * steps,
            desc=f"train {self.name}",
            unit="step",
            **({"disable": True} if self.quiet else bar_options()),
        )
        with bar, fastest_attention(self.network, self.device, self.plan.precision):
            for epoch in range(len(history) + 1, self.budget.epochs + 1):
                if self._has_no_patience_left(history):
                    break
                start = time.perf_counter()
                try:
                    train_loss, train_accuracy = self._train_epoch(train, epoch, steps, scheduler, bar)
                    train_seconds = time.perf_counter() - start
                    val_loss, val_accuracy = self._validate(val)
                except RuntimeError as error:
                    raise self._readable(error) from error
                self._require_finite(train_loss, val_loss, epoch)
                seconds = time.perf_counter() - start
                row = Epoch(
                    epoch=epoch,
                    elapsed_seconds=(history[-1].elapsed_seconds if history else 0.0) + seconds,
                    epoch_seconds=seconds,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    train_loss=train_loss,
                    train_accuracy=train_accuracy,
                    val_loss=val_loss,
                    val_accuracy=val_accuracy,
                    images_per_second=steps * min(recipe.batch_size, len(train)) / train_seconds,
                )
                history.append(row)
                if _best_epoch(history) == epoch:
                    best = _copy_weights(self._evaluated_network())
                if self.fabric.is_global_zero:
                    self._save(checkpoint, history, best)
                    on_epoch(row)
                if not self.quiet:
                    _tell(bar, self.name, row, self.budget.epochs)
        return Result(best, _best_epoch(history), history)

    def _train_epoch(
        self, train: ResidentImages, epoch: int, steps: int, scheduler: Any, bar: "tqdm[Any]"
    ) -> tuple[float, float]:
        recipe = self.model.recipe
        flips = None
        if recipe.augment.alternating_flip:
            flips = alternating_flips(len(train), epoch, self.seed).to(self.device)
        # Every epoch has its own seeds, so one that starts from a checkpoint draws what it would have drawn.
        torch.manual_seed(_epoch_seed(self.seed, epoch))
        order = torch.Generator().manual_seed(_epoch_seed(self.seed, epoch))
        draws = torch.Generator(self.device).manual_seed(_epoch_seed(self.seed, epoch) + 1 + self.share.rank)
        self.stepper.train()
        loss_sum = torch.zeros((), device=self.device)
        hits = torch.zeros((), device=self.device)
        seen, told = 0, time.perf_counter()
        for step, (images, labels, indices) in enumerate(train.shuffled(recipe.batch_size, order, self.share)):
            inputs = self.preprocess(self.augment(images, draws, None if flips is None else flips[indices]))
            targets = labels
            if recipe.augment.mixup or recipe.augment.cutmix:
                inputs, targets = mix(inputs, self._one_hot(labels), recipe.augment, draws)
            logits, loss = self._backward(inputs, targets)
            if recipe.clip_grad:
                # An error for a norm that is not finite would read it from the device at every step.
                self.fabric.clip_gradients(
                    self.stepper, self.fabric_optimizer, max_norm=recipe.clip_grad, error_if_nonfinite=False
                )
            self.fabric_optimizer.step()
            updates = (epoch - 1) * steps + step + 1
            scheduler.step_update(updates)
            if self.ema is not None:
                self.ema.update(self.network, step=updates)
            # Sums stay on the device: reading them at every step would wait for the device at every step.
            loss_sum += loss * len(labels)
            hits += (logits.argmax(dim=1) == labels).sum()
            seen += len(labels)
            bar.update()
            if not bar.disable and time.perf_counter() - told > 1.0:
                told = time.perf_counter()
                bar.set_postfix_str(f"epoch {epoch}, loss {loss_sum.item() / seen:.3f}, acc {hits.item() / seen:.1%}")
        self._average_statistics()
        return self._over_all(loss_sum, seen), self._over_all(hits, seen)

    def _over_all(self, total: Tensor, images: int) -> float:
        """The mean over the images of all processes of a `total` over this one's."""
        sums = torch.stack([total.double(), torch.tensor(float(images), device=self.device, dtype=torch.float64)])
        whole, count = torch.as_tensor(self.fabric.all_reduce(sums, reduce_op="sum")).tolist()
        return float(whole / count)

    def _average_statistics(self) -> None:
        """Batch norm's means and variances of all processes: each has seen its own images only."""
        if self.share.processes > 1:
            for network in (self.network, self._evaluated_network()):
                for buffer in network.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self.fabric.all_reduce(buffer))  # type: ignore[arg-type]

    def _backward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and mean loss of a batch, its gradients left in the network; in parts where memory is short."""
        while True:
            try:
                return self._backward_in_parts(inputs, targets)
            except RuntimeError as error:
                # Several processes must go on in step, and only this one knows of its memory.
                if not _is_out_of_memory(error) or self.micro_batch == 1 or self.share.processes > 1:
                    raise
            # Not in the handler: there the error still holds what the failed attempt has allocated.
            torch.cuda.empty_cache()
            self.micro_batch = math.ceil(self.micro_batch / 2)
            tqdm.write(
                f"{self.where}: memory does not suffice on {self.device} for {len(inputs)} images at once; "
                f"gradients are summed over parts of {self.micro_batch}.",
                file=sys.stderr,
            )

    def _backward_in_parts(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.fabric_optimizer.zero_grad(set_to_none=True)
        smoothing = self.model.recipe.label_smoothing
        logits, losses = [], []
        parts = (torch.split(each, self.micro_batch) for each in (inputs, targets))
        for part, wanted in zip(*parts, strict=True):
            answer = self.stepper(part)
            loss = functional.cross_entropy(answer.float(), wanted, label_smoothing=smoothing)
            loss = loss * (len(part) / len(inputs))
            self.fabric.backward(loss)
            logits.append(answer.detach())
            losses.append(loss.detach())
        return torch.cat(logits), torch.stack(losses).sum()

    @torch.no_grad()
    def _validate(self, val: ResidentImages) -> tuple[float, float]:
        network = self._evaluated_network()
        network.eval()
        loss_sum = torch.zeros((), device=self.device)
        hits = torch.zeros((), device=self.device)
        seen = 0
        for images, labels in val.in_order(max(self.model.recipe.batch_size, 256), self.share):
            with self.fabric.autocast():
                logits = network(self.preprocess(images)).float()
            loss_sum += functional.cross_entropy(logits, labels, reduction="sum")
            hits += (logits.argmax(dim=1) == labels).sum()
            seen += len(labels)
        return self._over_all(loss_sum, seen), self._over_all(hits, seen)

    def _evaluated_network(self) -> nn.Module:
        """The averaged weights where the recipe averages, the current ones otherwise."""
        averaged: nn.Module | None = self.ema.module if self.ema is not None else None
        return averaged or self.network

    def _restore(self, checkpoint: CheckpointFile) -> tuple[list[Epoch], Weights]:
        found = checkpoint.load()
        if found is None:
            return [], {}
        state, history = found
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.micro_batch = state["micro_batch"]
        return history, state["best"]

    def _save(self, checkpoint: CheckpointFile, history: list[Epoch], best: Weights) -> None:
        checkpoint.save(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.module.state_dict() if self.ema is not None else None,
                "best": best,
                "micro_batch": self.micro_batch,
            },
            history,
        )

    def _has_no_patience_left(self, history: list[Epoch]) -> bool:
        patience = self.budget.patience
        return patience is not None and bool(history) and len(history) - _best_epoch(history) >= patience

    def _one_hot(self, labels: Tensor) -> Tensor:
        return functional.one_hot(labels, self.num_classes).float()

    def _require_finite(self, train_loss: float, val_loss: float, epoch: int) -> None:
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            lr = self.model.recipe.optimizer.lr
            raise UserError(
                f"{self.where}: the loss is not finite any more in epoch {epoch}; lower "
                f"{self.where}.recipe.optimizer.lr (now {lr:g}), set {self.where}.recipe.clip_grad to 1.0, or "
                "train.precision to '32-true'."
            )

    def _readable(self, error: RuntimeError) -> Exception:
        if self.plan.compiled and _is_of_compiling(error):
            reason = str(error).strip().splitlines()[0]
            return UserError(f"train.compile: torch.compile does not work here ({reason}); set it to false.")
        if not _is_out_of_memory(error):
            return error
        return UserError(
            f"{self.where}: memory does not suffice on {self.device}, though gradients were summed over parts of "
            f"{self.micro_batch} of {self.model.recipe.batch_size} images; "
            f"lower {self.where}.recipe.batch_size or {self.where}.input_size."
        )


def _is_out_of_memory(error: RuntimeError) -> bool:
    # PyTorch's allocator on the CPU has no error of its own.
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _is_of_compiling(error: RuntimeError) -> bool:
    # Nothing public says so, and the module is loaded already where something was compiled.
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def _best_epoch(history: list[Epoch]) -> int:
    """The epoch (from 1) of the highest validation accuracy; among equals the lower loss, then the earlier one."""
    return min(history, key=lambda row: (-row.val_accuracy, row.val_loss, row.epoch)).epoch


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919) % 2**62


def _copy_weights(network: nn.Module) -> Weights:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


def _tell(bar: "tqdm[Any]", name: str, row: Epoch, epochs: int) -> None:
    line = (
        f"train {name}  epoch {row.epoch:>{len(str(epochs))}}/{epochs}  loss {row.train_loss:.3f}  "
        f"val {row.val_accuracy:6.2%}  {row.images_per_second:,.0f} images/s  "
        f"left {row.elapsed_seconds / row.epoch * (epochs - row.epoch):,.0f} s"
    )
    bar.write(line)
