"""Networks from settings: timm architectures, their weights, and the self-contained model that is served."""
