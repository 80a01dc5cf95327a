"""The pictures that explain one contestant, each with a caption that says what it shows and what it does not."""

from collections.abc import Sequence
from pathlib import Path

from vit_vs_cnn.explain.attention import Attention
from vit_vs_cnn.explain.explanation import Explanation, SampleExplanations
from vit_vs_cnn.explain.gradcam import CamLayer
from vit_vs_cnn.report.explanation_figures import (
    distance_figure,
    filters_figure,
    heads_figure,
    looks_figure,
    similarity_figure,
    stages_figure,
)
from vit_vs_cnn.report.figures import FigureWriter

_IMAGES_OF_HEADS = 3


def write_explanation(explanation: Explanation, classes: Sequence[str], colour: str, folder: Path) -> None:
    """Draw `explanation` into `folder`, in the contestant's `colour`, with figures.json."""
    gallery = FigureWriter(folder)
    _add_shared(gallery, explanation, classes)
    _add_mistakes(gallery, explanation, classes)
    if explanation.shared.attention is not None:
        _add_attention(gallery, explanation.shared, explanation.shared.attention, colour, explanation.input_size)
    _add_position_similarity(gallery, explanation)
    _add_filters(gallery, explanation)
    _add_stages(gallery, explanation)
    for sentence in explanation.skipped:
        gallery.skip(sentence)
    gallery.close()


def _add_shared(gallery: FigureWriter, explanation: Explanation, classes: Sequence[str]) -> None:
    looks = explanation.shared
    right = int((looks.labels == looks.predicted).sum())
    gallery.add(
        "same_images",
        looks_figure(looks, classes),
        "Where it looks, on the same images as the others",
        f"Test images drawn by chance, the same for every contestant; {right} of these {len(looks.labels)} are right. "
        + _how_to_read(looks, explanation.layer, "its answer"),
    )


def _add_mistakes(gallery: FigureWriter, explanation: Explanation, classes: Sequence[str]) -> None:
    looks = explanation.mistakes
    if looks is None:
        return
    gallery.add(
        "mistakes",
        looks_figure(looks, classes),
        "Its most confident mistakes",
        "The wrong answers it was surest of: picked like this, they say nothing about how often it is wrong. "
        + _how_to_read(looks, explanation.layer, "its answer (CAM: says) and for the true class (CAM: is)"),
    )


def _how_to_read(looks: SampleExplanations, layer: CamLayer | None, what_for: str) -> str:
    """What a row of pictures shows and what it does not, as far as this contestant has it."""
    sentences = []
    if layer is not None:
        sentences.append(
            f"Grad-CAM marks (yellow: most) the places that speak for {what_for}, in layer {layer.name} on "
            f"{layer.grid}×{layer.grid} positions that are smoothed here; each picture has its own scale, and a grey "
            "one has no such place."
        )
    if looks.attention is not None:
        sentences.append(
            "Attention rollout follows attention from the output back through all blocks; it does not know the class."
        )
    if sentences:
        sentences.append(
            "None of this proves why the answer was given, and agreement between contestants is no sign of truth."
        )
    return " ".join(sentences)


def _add_attention(
    gallery: FigureWriter, looks: SampleExplanations, attention: Attention, colour: str, input_size: int
) -> None:
    reader = "the class token" if attention.from_class_token else "all patches on average, which its answer is made of"
    gallery.add(
        "attention_heads",
        heads_figure(looks.images[:_IMAGES_OF_HEADS], attention.heads[:_IMAGES_OF_HEADS]),
        "What each head of the last block attends to",
        f"Attention that each patch gets from {reader}, a picture for each head, brighter for more; each has its own "
        "scale. Heads that differ gather different things. What a head attends to need not be what decides.",
    )
    gallery.add(
        "attention_distance",
        distance_figure(attention, colour),
        "How far attention reaches",
        f"Each dot is a head: the mean distance between a patch and the patches it attends to, in pixels of the "
        f"{input_size} px input, over the images above. Low dots work locally, as a convolution does; dots at the "
        f"dashed line ({attention.even_distance:.0f} px) are as wide as attention to everything alike. "
        "It does not say which is better.",
    )
    gallery.table(
        "attention_distance",
        {
            "block": [block for block, heads in enumerate(attention.distance, start=1) for _ in heads],
            "head": [head for heads in attention.distance for head in range(1, len(heads) + 1)],
            "pixels": [float(distance) for heads in attention.distance for distance in heads],
        },
    )


def _add_position_similarity(gallery: FigureWriter, explanation: Explanation) -> None:
    if explanation.similarity is None:
        return
    gallery.add(
        "position_similarity",
        similarity_figure(explanation.similarity),
        "What it knows of where a patch is",
        "Each tile belongs to a patch and shows how alike its position embedding is to that of every patch (brighter: "
        "more alike). A bright spot that moves with the tile means that it learned which patches are neighbours; "
        "flat tiles mean that it hardly tells places apart. It says nothing about the content of the images.",
    )


def _add_filters(gallery: FigureWriter, explanation: Explanation) -> None:
    filters = explanation.filters
    if filters is None:
        return
    height, width = filters.pictures.shape[1:3]
    what = (
        f"The first {len(filters.pictures)} principal components of the {filters.total} filters"
        if filters.components
        else f"All {filters.total} filters"
    )
    gallery.add(
        "first_filters",
        filters_figure(filters),
        "What its first layer looks for",
        f"{what} of {filters.name}, which reads the pixels in pieces of {height}×{width}. Grey is zero; each "
        "has its own scale. Edges, blobs and colours mean that it learned something; noise, that it has not (yet). "
        "What later layers make of them is not seen here.",
    )


def _add_stages(gallery: FigureWriter, explanation: Explanation) -> None:
    if explanation.stages is None:
        return
    gallery.add(
        "feature_maps",
        stages_figure(explanation.shared.images[0], explanation.stages),
        "What its layers make of an image",
        "One image from first stage to last, in the channels that vary most over it, brighter for more active; each "
        "picture has its own scale, and a stage that is down to one position has no map. Deeper maps are more about "
        "content and less about place. The channels are picked for this image: for another they would be others.",
    )
