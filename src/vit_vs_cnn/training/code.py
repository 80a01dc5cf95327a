"""Which code decides the outcome of a training, as a digest."""

import hashlib
from pathlib import Path

import vit_vs_cnn

# Code whose change makes another training of the same settings.
_CODE = ("config/*.py", "data/augment/*.py", "data/loader.py", "models/*.py", "training/*.py")


def code_digest(*more: str) -> str:
    """A digest of the code that decides the outcome of a training, and of the files that `more` patterns match.

    Raises FileNotFoundError where a pattern matches no file: moved code must not leave the digest unnoticed.
    """
    digest = hashlib.blake2b(digest_size=12)
    package = Path(vit_vs_cnn.__file__).parent
    for pattern in (*_CODE, *more):
        paths = sorted(package.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"{pattern}: matches no file of {package}.")
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()
