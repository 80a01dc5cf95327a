"""The figures that explain one contestant, each with a caption that says what it shows and what it does not."""

from collections.abc import Sequence
from pathlib import Path

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.attention import Attention
from vit_vs_cnn.explain.features import feature_maps, first_filters, position_similarity
from vit_vs_cnn.explain.samples import SampleExplanations
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.report import explanation_figures as figures
from vit_vs_cnn.report.figures import FigureWriter

_IMAGES_OF_HEADS = 3


def write_explanation(
    model: TrainedModel,
    shared: SampleExplanations,
    mistakes: SampleExplanations | None,
    classes: Sequence[str],
    colour: str,
    folder: Path,
) -> None:
    """Draw the explanation of `model` into `folder`, with figures.json.

    `shared` are images on which all contestants are shown; `mistakes` are its own, None where it made none. `colour`
    is that of the contestant.
    """
    writer = FigureWriter(folder)
    correct = int((shared.labels == shared.predicted).sum())
    writer.add(
        "same_images",
        figures.samples_figure(shared, classes),
        "Saliency maps of images that all contestants share",
        f"Random test images, the same for every contestant; {correct} of these {len(shared.labels)} are classified "
        "correctly. " + _how_to_read(shared, "the predicted class"),
    )
    for reason in shared.skipped:
        writer.skip(reason)
    if mistakes is None:
        writer.skip("Mistakes are skipped: the contestant made none on the test images.")
    else:
        writer.add(
            "mistakes",
            figures.samples_figure(mistakes, classes),
            "Its most confident mistakes",
            "The wrong predictions with the highest confidence; the selection says nothing about how often the "
            "contestant is wrong. "
            + _how_to_read(mistakes, "the predicted class (CAM: says) and for the true class (CAM: is)"),
        )
    if shared.attention is not None:
        _add_attention(writer, shared, shared.attention, colour, model.preprocess.input_size)
    for add in (_add_position_similarity, _add_filters, _add_feature_maps):
        try:
            add(writer, model, shared)
        except NotApplicableError as error:
            writer.skip(str(error))
    writer.close()


def _how_to_read(samples: SampleExplanations, target: str) -> str:
    """What the maps in a row of images show and what they do not, as far as the network has them."""
    sentences = []
    if samples.layer is not None:
        sentences.append(
            f"Grad-CAM highlights (yellow: most) the evidence for {target}, in layer {samples.layer.name} on "
            f"{samples.layer.grid}×{samples.layer.grid} positions that are smoothed here; each map has its own scale, "
            "and a grey image has no such evidence."
        )
    if samples.attention is not None:
        sentences.append("Attention rollout follows attention from the output back to the image; it ignores the class.")
    if sentences:
        sentences.append("None of this proves why a class was predicted, and contestants that agree can both be wrong.")
    return " ".join(sentences)


def _add_attention(
    writer: FigureWriter, samples: SampleExplanations, attention: Attention, colour: str, input_size: int
) -> None:
    source = "the class token" if attention.from_class_token else "all patches on average, which the network pools"
    writer.add(
        "attention_heads",
        figures.heads_figure(samples.images[:_IMAGES_OF_HEADS], attention.heads[:_IMAGES_OF_HEADS]),
        "What each head of the last block attends to",
        f"Attention to each patch from {source}, one map per head, brighter for more; each has its own scale. Heads "
        "that differ collect different information. What a head attends to need not decide the prediction.",
    )
    blocks = [block for block, heads in enumerate(attention.distance, start=1) for _ in heads]
    heads = [head for heads in attention.distance for head in range(1, len(heads) + 1)]
    pixels = [float(distance) for heads in attention.distance for distance in heads]
    writer.add(
        "attention_distance",
        figures.distance_figure(blocks, pixels, attention.even_distance, colour),
        "How far attention reaches",
        "Each dot is a head: the mean distance between a patch and the patches it attends to, in pixels of the "
        f"{input_size} px input, over the images above. Low dots are local, like a convolution; dots at the dashed "
        f"line ({attention.even_distance:.0f} px) reach as far as attention to all patches alike. Neither is better.",
    )
    writer.table("attention_distance", {"block": blocks, "head": heads, "pixels": pixels})


def _add_position_similarity(writer: FigureWriter, model: TrainedModel, _: SampleExplanations) -> None:
    writer.add(
        "position_similarity",
        figures.similarity_figure(position_similarity(model.network)),
        "What it knows about the position of a patch",
        "Each tile belongs to a patch and shows how similar its position embedding is to that of every patch, brighter "
        "for more. A bright spot that moves with the tile means that the network learned which patches are neighbours; "
        "flat tiles mean that it hardly distinguishes positions. The content of the images plays no part.",
    )


def _add_filters(writer: FigureWriter, model: TrainedModel, _: SampleExplanations) -> None:
    filters = first_filters(model.network)
    height, width = filters.images.shape[1:3]
    shown = (
        f"The first {len(filters.images)} principal components of the {filters.total} filters"
        if filters.components
        else f"All {filters.total} filters"
    )
    writer.add(
        "first_filters",
        figures.filters_figure(filters),
        "What its first layer looks for",
        f"{shown} of {filters.name}, which reads {height}×{width} pixels at a time. Grey is zero; each filter has its "
        "own scale. Edges, blobs and colours mean that it learned something; noise, that it has not (yet). How later "
        "layers use them is not visible here.",
    )


def _add_feature_maps(writer: FigureWriter, model: TrainedModel, shared: SampleExplanations) -> None:
    stages = feature_maps(model.network, shared.pixels[:1])
    writer.add(
        "feature_maps",
        figures.stages_figure(shared.images[0], stages),
        "What its layers make of an image",
        "One image from the first stage to the last, in the channels that vary most over it, brighter for more active; "
        "each map has its own scale, and a stage with a single position has no map. Deeper maps are more about content "
        "and less about position. The channels are chosen for this image; another image would have others.",
    )
