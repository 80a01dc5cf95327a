"""cost: cost/<contestant>.json with what the exported models cost to use, measured in turns in one process."""

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import COST, PREPARED, cost_file, trained
from vit_vs_cnn.core.records import numbers_of
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.evaluation.cost import count_flops, measure_speed
from vit_vs_cnn.evaluation.results import Cost
from vit_vs_cnn.models.build import input_size
from vit_vs_cnn.models.export import load_trained_program
from vit_vs_cnn.tracking.names import prefixed_metrics
from vit_vs_cnn.tracking.run import add_to_run
from vit_vs_cnn.training.device import choose_device, device_name
from vit_vs_cnn.training.results import choose_replicate


def run(settings: Settings) -> None:
    """Measure the chosen replicate of each contestant on images of val."""
    info, val = read_info(PREPARED), read_split(PREPARED, "val")
    device = choose_device(settings.train)
    chosen = {contestant: choose_replicate(settings, contestant) for contestant in settings.models}
    folders = {contestant: trained(contestant, summary.seed) for contestant, summary in chosen.items()}
    programs = {contestant: load_trained_program(folder, device) for contestant, folder in folders.items()}
    speeds = measure_speed(programs, val.images, settings.evaluate.batch_size, device)
    COST.mkdir(exist_ok=True)
    found = []
    for contestant, summary in chosen.items():
        speed = speeds[contestant]
        cost = Cost(
            parameters=summary.parameters,
            flops=count_flops(programs[contestant], val.images[:1], device),
            seconds_per_epoch=summary.seconds_per_epoch,
            device=device_name(device),
            input_size=input_size(with_tuned(settings, contestant).model(contestant), info.image_size),
            **speed.model_dump(),
        )
        cost.write(cost_file(contestant))
        with add_to_run(folders[contestant]) as tracked:
            tracked.log_metrics(prefixed_metrics("cost", numbers_of(cost, {"parameters", "seconds_per_epoch"})))
            tracked.log_artifact(cost_file(contestant), "cost")
        found.append(
            f"{contestant} {speed.latency_p50_ms:.1f} ms for one image ({speed.latency_p50_ms_low:.1f} to "
            f"{speed.latency_p50_ms_high:.1f} by round), {speed.throughput_images_per_second:,.0f} images/s in batches"
        )
    print(f"cost: {'; '.join(found)}")
