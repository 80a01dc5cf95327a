"""Which models may be loaded: those that this installation signed. A model file is a program.

At registration a version gets the digest of its files and a signature of it (HMAC, RFC 2104) as tags. Whoever can write
to the registry, but does not have the key, cannot have anything loaded.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.private_files import read_or_make_secret

KEY_VARIABLE = "VIT_VS_CNN_SIGNING_KEY"
_DIGEST, _SIGNATURE = "model.digest", "model.signature"
_FILES = frozenset(
    {
        "MLmodel",
        "conda.yaml",
        "data/model.pt2",
        "input_example.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    }
)
# MLflow writes it beside what it downloads.
_OF_THE_DOWNLOAD = "registered_model_meta"


def key_file() -> Path:
    """The file with the key: that of VIT_VS_CNN_SIGNING_KEY, which machines may share, or one of this user."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(os.environ.get(KEY_VARIABLE) or config / "vit-vs-cnn" / "signing-key")


def signature_tags(model: Path) -> dict[str, str]:
    """The tags that make the MLflow model in the folder `model` one of this installation."""
    digest = _digest(model)
    return {_DIGEST: digest, _SIGNATURE: _sign(digest)}


def require_own_format(model: Path) -> None:
    """Raise UserError unless the MLflow model in the folder `model` is of the kind that this project exports.

    MLflow would import what another one's description names, and torch unpickle what lies beside its program.
    """
    if unknown := sorted(_files(model) - _FILES):
        raise UserError(f"it is not one that this project exported: it holds {unknown[0]}")
    try:
        flavors: Any = YAML(typ="safe", pure=True).load(model / "MLmodel")["flavors"]
        function, pytorch = flavors["python_function"], flavors["pytorch"]
        own = (
            flavors.keys() == {"python_function", "pytorch"}
            and function["loader_module"] == "mlflow.pytorch"
            and function["data"] == pytorch["model_data"] == "data"
            and function.get("code") is None
            and pytorch.get("code") is None
        )
    except (OSError, YAMLError, KeyError, TypeError, AttributeError, ValueError):
        own = False
    if not own:
        raise UserError("it is not one that this project exported: its MLmodel describes something else")


def require_trusted(model: Path, tags: Mapping[str, str], trust: str) -> None:
    """Raise UserError unless the files in `model` are those that the `tags` of their version were signed for.

    `trust` is the command that signs them.
    """
    require_own_format(model)
    if _SIGNATURE not in tags or not hmac.compare_digest(_sign(tags.get(_DIGEST, "")), tags[_SIGNATURE]):
        raise UserError(
            f"it is not signed with the key in {key_file()}, and a model file is a program: if you know where it comes "
            f"from, `{trust}`; {KEY_VARIABLE} names the key that several machines share"
        )
    if _digest(model) != tags[_DIGEST]:
        raise UserError(
            "its files are not those that were signed: somebody changed them, or the disk did; register it again"
        )


def _sign(digest: str) -> str:
    try:
        key = read_or_make_secret(key_file(), lambda: secrets.token_hex(32))
    except OSError as error:
        raise UserError(
            f"{key_file()}: the key that signs models cannot be used ({error.strerror}): let {KEY_VARIABLE} name "
            "a file that can."
        ) from None
    return hmac.new(key.encode(), digest.encode(), hashlib.sha256).hexdigest()


def _digest(model: Path) -> str:
    """SHA-256 of the paths and contents of all files, in the order of the paths."""
    lines = []
    for name in sorted(_files(model)):
        with (model / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(model: Path) -> set[str]:
    return {path.relative_to(model).as_posix() for path in model.rglob("*") if not path.is_dir()} - {_OF_THE_DOWNLOAD}
