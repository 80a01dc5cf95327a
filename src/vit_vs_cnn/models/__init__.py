"""Networks from settings: timm architectures, their weights, and the self-contained model that is served."""

from vit_vs_cnn.core.start_up import without_compiler

with without_compiler():
    import timm  # noqa: F401 - here, before any module of this room does
