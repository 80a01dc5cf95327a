"""scikit-learn's packaged handwritten digits, enlarged: real images that need no download."""

import numpy as np

from vit_vs_cnn.data.sources.source import Source


def open_digits(image_size: int) -> Source:
    """Open the 1,797 digits as RGB images of `image_size`, each of their 8×8 pixels a block of one grey."""
    # The import takes half a second that other sources need not spend.
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    nearest = np.arange(image_size) * 8 // image_size
    images = np.repeat(grey[:, nearest][:, :, nearest, None], 3, axis=-1)
    return Source(
        description="scikit-learn's packaged handwritten digits: 1,797 images of 8×8 grey pixels, drawn larger",
        classes=tuple(str(name) for name in digits.target_names),
        names=tuple(f"{position:04d}" for position in range(len(images))),
        labels=digits.target.astype(np.int64),
        splits=np.zeros(len(images), np.int64),
        missing=("test", "val"),
        read=lambda: enumerate(images),
    )
