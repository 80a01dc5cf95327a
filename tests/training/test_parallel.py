"""Several processes that share every batch, over gloo on the CPU."""

import multiprocessing
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_split
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import FinishedTraining, prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch

Make = Callable[..., Settings]
# Every process draws for its own images, so only without chance can one and two be compared; and Adam would make much
# of what rounding does to gradients that are zero.
PLAIN = {"augment": {"flip": 0.0, "translate": 0.0}, "optimizer": {"name": "sgd", "lr": 0.05}}


def train(settings: Settings, name: str, info: DatasetInfo, on_epoch: Callable[[Epoch], None]) -> FinishedTraining:
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    job = prepare_contestant(settings, name, info, splits, quiet=True)
    with open_checkpoint(f"test-{name}-{settings.train.devices}") as checkpoint:
        return train_contestant(job, checkpoint, on_epoch)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_two_processes_train_as_one_with_the_same_batches(
    make_settings: Make, prepared: DatasetInfo, ema_decay: float | None
) -> None:
    histories, weights = {}, {}
    for devices in (1, 2):
        reported: list[Epoch] = []
        recipe = PLAIN | {"ema_decay": ema_decay}
        settings = make_settings({"train": {"devices": devices, "epochs": 3}, "recipe": recipe})
        training = train(settings, "vit", prepared, reported.append)
        assert reported == training.history
        assert training.summary.device.startswith("2 × CPU" if devices == 2 else "CPU")
        histories[devices], weights[devices] = training.history, training.model.network.state_dict()
    for one, two in zip(histories[1], histories[2], strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-5)
        assert two.val_loss == pytest.approx(one.val_loss, rel=1e-5)
    for name, tensor in weights[1].items():
        torch.testing.assert_close(weights[2][name], tensor, atol=1e-5, rtol=0.0)


def test_batch_norm_s_statistics_are_those_of_all_processes(make_settings: Make, prepared: DatasetInfo) -> None:
    hardly_learning = PLAIN | {"optimizer": {"name": "sgd", "lr": 1e-9}}
    means = {}
    for devices in (1, 2):
        settings = make_settings({"train": {"devices": devices}, "recipe": hardly_learning})
        weights = train(settings, "resnet", prepared, lambda _: None).model.network.state_dict()
        means[devices] = next(tensor for name, tensor in weights.items() if name.endswith("running_mean"))
    torch.testing.assert_close(means[2], means[1])


def test_a_stopped_training_resumes_from_its_checkpoint_in_processes_too(
    make_settings: Make, prepared: DatasetInfo
) -> None:
    class StopError(Exception):
        pass

    def stop_after_two(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise StopError

    # So many that the processes are stopped before the last one, however late this process hears of the second.
    epochs = 60
    settings = make_settings({"train": {"devices": 2, "epochs": epochs}, "recipe": PLAIN})
    with pytest.raises(StopError):
        train(settings, "vit", prepared, stop_after_two)
    assert not multiprocessing.active_children()
    reported: list[Epoch] = []
    assert len(train(settings, "vit", prepared, reported.append).history) == epochs
    assert reported[-1].epoch == epochs
    assert reported[0].epoch > 2


def test_a_mistake_is_the_same_error_as_in_one_process(make_settings: Make, prepared: DatasetInfo) -> None:
    settings = make_settings({"train": {"devices": 2}, "recipe": {"optimizer": {"name": "sgd", "lr": 1e30}}})
    with pytest.raises(UserError, match=r"models\.vit: the loss is not finite any more in epoch 1; lower"):
        train(settings, "vit", prepared, lambda _: None)
    assert not multiprocessing.active_children()


def test_batches_that_cannot_be_shared_equally_are_refused(make_settings: Make) -> None:
    with pytest.raises(UserError, match=r"models\.vit\.recipe\.batch_size: 3 devices .* cannot share 16 images"):
        make_settings({"train": {"devices": 3}})


def test_a_process_is_sent_the_folder_of_the_images_and_not_the_pixels(prepared: DatasetInfo) -> None:
    import pickle

    split = read_split(PREPARED, "train")
    assert len(pickle.dumps(split)) < 1_000
    copied = pickle.loads(pickle.dumps(split))
    assert np.array_equal(copied.images, split.images)
    part = Split(split.images[::2], split.labels[::2], split.names[::2])
    assert np.array_equal(pickle.loads(pickle.dumps(part)).images, part.images)
