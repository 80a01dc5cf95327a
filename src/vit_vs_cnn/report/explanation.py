"""The figures that explain one contestant, each with a caption that says what it shows and what it does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.core.start_up import without
from vit_vs_cnn.evaluation.faithfulness import Faithfulness
from vit_vs_cnn.explain.attention import Attention
from vit_vs_cnn.explain.features import StageMaps, feature_maps, first_filters, position_similarity
from vit_vs_cnn.explain.layers import reads_class_token
from vit_vs_cnn.explain.overlay import overlay
from vit_vs_cnn.explain.samples import SampleExplanations
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.fonts import save_figure
from vit_vs_cnn.report.grid import Tile, image_grid, in_rows, resized
from vit_vs_cnn.report.map_quality import curves_table, faithfulness_table
from vit_vs_cnn.report.style import NEUTRAL, SEQUENTIAL, new_figure

with without("scipy.stats", "scipy.cluster"):  # for what no figure here has
    import seaborn as sns

_IMAGES_OF_HEADS = 3
_HEADS_PER_ROW = 4
_FILTERS_PER_ROW = 8
_MOST_TILES = 8
# Sides of a tile in pixels of the PNG.
_SAMPLE = 104
_LARGE_SAMPLE = 200
_HEAD = 104
_MAP = 84
_FILTER = 64


def write_explanation(
    model: TrainedModel,
    shared: SampleExplanations,
    mistakes: SampleExplanations | None,
    faithfulness: Mapping[str, Faithfulness],
    classes: Sequence[str],
    colour: str,
    folder: Path,
) -> None:
    """Draw the explanation of `model` into `folder`, with figures.json.

    `shared` are images on which all contestants are shown; `mistakes` are its own, None where it made none.
    `faithfulness` is that of each kind of map in them. `colour` is that of the contestant.
    """
    writer = FigureWriter(folder, "explanation")
    correct = int((shared.labels == shared.predicted).sum())
    how_to_read = _how_to_read(writer, model, shared, faithfulness, "same_images")
    figure = _samples_figure(shared, classes)
    images = len(shared.labels)
    writer.add_images(
        "same_images", figure, _maps_shown(shared), correct=correct, images=images, how_to_read=how_to_read
    )
    writer.table("faithfulness", faithfulness_table(faithfulness))
    writer.table("faithfulness_curves", curves_table(faithfulness))
    writer.skipped.extend(shared.skipped)
    if mistakes is None:
        writer.skip("mistakes")
    else:
        how_to_read = _how_to_read(writer, model, mistakes, faithfulness, "mistakes")
        figure = _samples_figure(mistakes, classes)
        writer.add_images("mistakes", figure, _maps_shown(mistakes), how_to_read=how_to_read)
    if shared.attention is not None:
        _add_attention(writer, shared.images, shared.attention, colour, model.preprocess.input_size)
    for add in (_add_position_similarity, _add_filters, _add_feature_maps):
        try:
            add(writer, model, shared)
        except NotApplicableError as error:
            writer.skipped.append(str(error))
    writer.close()


def write_sample_images(samples: SampleExplanations, classes: Sequence[str], folder: Path) -> None:
    """Draw each image with its maps into `folder`, which is made, as 1.png, 2.png and so on.

    The maps of all contestants have the same places, two beside each other.
    """
    folder.mkdir()
    titles = [*_saliency(samples)]
    for place in range(len(samples.images)):
        is_label, says, sure, verdict = _verdict(samples, place, classes)
        captions = [f"{is_label}, {says}\n{sure}, {verdict}", *titles]
        tiles = _sample_tiles(samples, place, _LARGE_SAMPLE)
        captioned = [tile and Tile(tile.image, caption) for tile, caption in zip(tiles, captions, strict=True)]
        figure = image_grid([captioned[:2], captioned[2:]], _LARGE_SAMPLE)
        save_figure(figure, folder / f"{place + 1}.png")


def _how_to_read(
    writer: FigureWriter,
    model: TrainedModel,
    samples: SampleExplanations,
    faithfulness: Mapping[str, Faithfulness],
    name: str,
) -> str:
    """What the maps that the network has show in the figure, from where, and whether they are evidence."""
    verdicts = {}
    for kind, measured in faithfulness.items():
        verdict = measured.verdict
        verdicts[kind] = writer.text(
            "how_to_read",
            verdict,
            deletion=measured.deletion.mean(),
            insertion=measured.insertion.mean(),
            random=measured.random.mean(),
            images=len(measured.random),
        )
    sentences, layer = [], samples.layer
    if layer is not None:
        target = writer.text(name, "target")
        from_token = layer.tokens and reads_class_token(model.network)
        values = {"target": target, "layer": layer.name, "grid": layer.grid, "faithfulness": verdicts["gradcam"]}
        which = writer.text("how_to_read", "class_token_layer" if from_token else "last_layer")
        sentences.append(writer.text("how_to_read", "gradcam", which=which, **values))
    if samples.attention is not None:
        source = _source(writer, samples.attention)
        sentences.append(writer.text("how_to_read", "attention", source=source, faithfulness=verdicts["rollout"]))
    if sentences:
        if name == "mistakes":
            sentences.append(writer.text("mistakes", "measured_on"))
        sentences.append(writer.text("how_to_read", "caution"))
    return " ".join(sentences)


def _source(writer: FigureWriter, attention: Attention) -> str:
    return writer.text("attention_heads", "class_token" if attention.from_class_token else "all_patches")


def _add_attention(
    writer: FigureWriter, images: NDArray[np.uint8], attention: Attention, colour: str, input_size: int
) -> None:
    shown = _heads_figure(images[:_IMAGES_OF_HEADS], attention.heads[:_IMAGES_OF_HEADS])
    alt = f"{len(images[:_IMAGES_OF_HEADS])} images, beside each the maps of {attention.heads.shape[1]} heads"
    writer.add_images("attention_heads", shown, alt, source=_source(writer, attention))
    heads = pd.DataFrame(
        [
            (block, head, float(pixels))
            for block, distances in enumerate(attention.distance, start=1)
            for head, pixels in enumerate(distances, start=1)
        ],
        columns=["block", "head", "pixels"],
    )
    even = attention.even_distance
    figure = _distance_figure(heads, even, colour)
    nearest, farthest = heads["pixels"].min(), heads["pixels"].max()
    alt = f"{len(heads)} heads reach {nearest:.0f} to {farthest:.0f} px; spread evenly it would be {even:.0f} px"
    writer.add("attention_distance", figure, alt, input_size=input_size, even_distance=even)
    writer.table("attention_distance", heads)


def _add_position_similarity(writer: FigureWriter, model: TrainedModel, _: SampleExplanations) -> None:
    similarity = position_similarity(model.network)
    alt = f"Maps of similarities from {similarity.min():.2f} to {similarity.max():.2f}"
    writer.add("position_similarity", _similarity_figure(similarity), alt)


def _add_filters(writer: FigureWriter, model: TrainedModel, _: SampleExplanations) -> None:
    filters = first_filters(model.network)
    count, height, width, _channels = filters.images.shape
    which = {"components": count, "filters": filters.total}
    shown = writer.text("first_filters", "components" if filters.components else "all_filters", **which)
    figure = image_grid(in_rows([Tile(image) for image in filters.images], _FILTERS_PER_ROW), _FILTER)
    alt = f"{count} filters of {height} × {width} pixels"
    writer.add_images("first_filters", figure, alt, shown=shown, layer=filters.name, height=height, width=width)


def _add_feature_maps(writer: FigureWriter, model: TrainedModel, shared: SampleExplanations) -> None:
    stages = feature_maps(model.network, shared.pixels[:1])
    grids = [stage.maps.shape[-1] for stage in stages]
    alt = f"An image, and maps of {len(stages)} stages, from {max(grids)}×{max(grids)} to {min(grids)}×{min(grids)}"
    writer.add_images("feature_maps", _stages_figure(shared.images[0], stages), alt)


def _samples_figure(samples: SampleExplanations, classes: Sequence[str]) -> Figure:
    """A row per image: the image itself, Grad-CAM and attention rollout, as far as the contestant has them."""
    columns = _saliency(samples)
    rows = [[tile for tile in _sample_tiles(samples, i, _SAMPLE) if tile] for i in range(len(samples.images))]
    labels = ["\n".join(_verdict(samples, i, classes)) for i in range(len(samples.images))]
    titles = [title for title, maps in columns.items() if maps is not None]
    return image_grid(rows, _SAMPLE, row_labels=labels, column_labels=["image", *titles])


def _saliency(samples: SampleExplanations) -> dict[str, NDArray[np.float32] | None]:
    """The maps (N, G, G) by their titles, None where the contestant has none; the same titles for all contestants."""
    own = {"CAM: says": samples.cam_predicted, "CAM: is": samples.cam_true}
    cam = {"Grad-CAM": samples.cam_predicted} if samples.cam_true is None else own
    return cam | {"attention": samples.attention.rollout if samples.attention else None}


def _maps_shown(samples: SampleExplanations) -> str:
    shown = [title for title, maps in _saliency(samples).items() if maps is not None]
    return f"{len(samples.images)} images, beside each: {', '.join(shown) or 'no map'}"


def _sample_tiles(samples: SampleExplanations, place: int, side: int) -> list[Tile | None]:
    """An image and its maps, None for those that the contestant does not have."""
    image = samples.images[place]
    maps = [found if found is None else found[place] for found in _saliency(samples).values()]
    return [
        Tile(image),
        *(None if found is None else Tile(overlay(resized(image, side), found)) for found in maps),
    ]


def _verdict(samples: SampleExplanations, place: int, classes: Sequence[str]) -> list[str]:
    """What an image is, what the contestant says and how sure it is, and whether that is right: in lines."""
    label, predicted, confidence = samples.labels[place], samples.predicted[place], samples.confidence[place]
    # Rounding must not make a prediction look certain.
    percent = "> 99 %" if confidence > 0.99 else f"{100 * confidence:.0f} %"
    verdict = "✓ right" if label == predicted else "✗ wrong"
    return [f"is {classes[label]}", f"says {classes[predicted]}", f"{percent} sure", verdict]


def _heads_figure(images: NDArray[np.uint8], heads: NDArray[np.float32]) -> Figure:
    """Each image, uint8 (H, W, 3), and beside it the attention (heads, G, G) of each head; brighter is more."""
    rows: list[list[Tile | None]] = []
    for image, maps in zip(images, heads, strict=True):
        tiles = [Tile(_coloured(head), f"head {number}") for number, head in enumerate(maps, start=1)]
        lines = in_rows(tiles, _HEADS_PER_ROW)
        rows += [[Tile(image, "image"), *lines[0]], *([None, *line] for line in lines[1:])]
    return image_grid(rows, _HEAD)


def _distance_figure(heads: pd.DataFrame, even_distance: float, colour: str) -> Figure:
    """Mean attention distance of each head by its block, and that of attention spread evenly."""
    figure = new_figure()
    axes = figure.subplots()
    axes.scatter(heads["block"], heads["pixels"], color=colour, alpha=0.75, s=42, label="one head")
    axes.axhline(even_distance, color=NEUTRAL, linestyle="--", label="attention spread evenly")
    axes.set(xlabel="block, from the image to the answer", ylabel="mean attention distance (px)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.25 * max(even_distance, heads["pixels"].max()))
    axes.legend(loc="upper left", ncols=2)
    return figure


def _similarity_figure(similarity: NDArray[np.float32]) -> Figure:
    """A grid of grids: the tile at (row, column) compares that patch's position with all positions."""
    grid = len(similarity)
    chosen = np.linspace(0, grid - 1, min(grid, _MOST_TILES)).round().astype(int)
    # An empty line separates the tiles.
    tiles = np.pad(similarity[np.ix_(chosen, chosen)], ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    side = len(chosen) * (grid + 1)
    figure = new_figure(height=4.2)
    axes = figure.subplots()
    sns.heatmap(
        tiles.swapaxes(1, 2).reshape(side, side)[:-1, :-1],
        square=True,
        cmap=SEQUENTIAL,
        vmin=min(0.0, float(similarity.min())),
        vmax=1,
        cbar_kws={"label": "cosine similarity", "shrink": 0.85},
        rasterized=True,
        ax=axes,
    )
    middles = np.arange(len(chosen)) * (grid + 1) + grid / 2
    axes.set_xticks(middles, chosen + 1)
    axes.set_yticks(middles, chosen + 1)
    axes.set(xlabel="column of the patch", ylabel="row of the patch")
    axes.tick_params(rotation=0)
    axes.grid(visible=False)
    return figure


def _stages_figure(image: NDArray[np.uint8], stages: Sequence[StageMaps]) -> Figure:
    """The image, and a row per stage with the channels that vary most; brighter is more active."""
    rows, labels = [[Tile(image)]], ["image"]
    for stage in stages:
        grid = stage.maps.shape[-1]
        rows.append([Tile(_coloured(channel)) for channel in stage.maps])
        labels.append(f"{stage.name}\n{grid}×{grid}\n{stage.total} channels")
    return image_grid(rows, _MAP, row_labels=labels)


def _coloured(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`values` (G, G) as colours uint8 (G, G, 3) from their minimum to their maximum."""
    colours: NDArray[np.uint8] = mpl.colormaps[SEQUENTIAL](mpl.colors.Normalize()(values), bytes=True)[..., :3]
    return colours
