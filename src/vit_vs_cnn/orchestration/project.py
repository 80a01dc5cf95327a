"""A project folder: made from the installed package, and a git repository of its own."""

import re
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.git import git, git_output
from vit_vs_cnn.core.records import digest_of

# Which build of the package the stages were made for: they depend on this file, and so run anew after an update.
VERSION_FILE = "vit-vs-cnn.version"
# Of the package, and replaced by an update; the others are the user's from the first day on.
_OF_THE_PACKAGE = (
    ".dvc/.gitignore",
    ".dvcignore",
    "dvc.yaml",
    "flows",
    "deploy/local.yaml",
    "deploy/remote.yaml",
)
_OF_THE_USER = (
    ".dvc/config",
    ".gitignore",
    "data/raw/cifar10.md",
    "data/raw/digits.md",
    "params.yaml",
    "presets",
    "studies",
)
# Of the files of the package; editors and systems leave others there.
_SUFFIXES = {".html", ".j2", ".py", ".yaml"}
_AUTHOR = ("-c", "user.name=vit-vs-cnn", "-c", "user.email=vit-vs-cnn@localhost")
_CODE = re.compile(r"(?:^ +- src/vit_vs_cnn/\S+\n)+", re.MULTILINE)
_ABOUT_CODE = re.compile(
    r"^# A stage depends on the rooms of the code.*?\. (?=Stages marked)", re.MULTILINE | re.DOTALL
)


def make_project(folder: Path) -> bool:
    """Make `folder` a project for the installed package, or bring the package's part of one up to date.

    Returns whether it is new. Raises UserError where the folder holds something else, or the package's own code.
    """
    if (folder / "src" / "vit_vs_cnn").is_dir():
        raise UserError(f"{folder} is the package's own repository: it is a project as it is.")
    is_new = not (folder / VERSION_FILE).is_file()
    if is_new and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and no vit-vs-cnn project: name a new folder.")
    for name in (*_OF_THE_PACKAGE, *(_OF_THE_USER if is_new else ())):
        _copy(_template() / name, folder / name)
    stages = (folder / "dvc.yaml").read_text(encoding="utf-8")
    indented = _CODE.sub(lambda found: f"{found[0][: found[0].index('-')]}- {VERSION_FILE}\n", stages)
    about = f"# A stage depends on {VERSION_FILE}, which names the installed package.\n# "
    (folder / "dvc.yaml").write_text(_ABOUT_CODE.sub(about, indented), encoding="utf-8")
    (folder / VERSION_FILE).write_text(f"{installed_build()}\n", encoding="utf-8")
    return is_new


def has_repository(folder: Path) -> bool:
    """Whether `folder` is the top of a git repository; a folder within another one is not."""
    top = git(folder, "rev-parse", "--show-toplevel")
    return top.returncode == 0 and Path(top.stdout.strip()).resolve() == folder.resolve()


def make_repository(folder: Path) -> None:
    """Make `folder` a git repository with all that is in it as the first commit."""
    author = _AUTHOR if git(folder, "config", "user.email").returncode != 0 else ()
    git_output(folder, "init", "--quiet", "--initial-branch", "main")
    git_output(folder, "add", "--all")
    git_output(folder, *author, "commit", "--quiet", "--message", f"vit-vs-cnn {version('vit-vs-cnn')}")


def refuse_other_version(root: Path) -> None:
    """Raise UserError where the project in `root` was made for another build of the package than the installed."""
    file = root / VERSION_FILE
    if not file.is_file():
        return
    made_for, installed = file.read_text(encoding="utf-8").strip(), installed_build()
    if made_for != installed:
        raise UserError(
            f"{root} was made for vit-vs-cnn {made_for}, and {installed} is installed: run "
            f"`vit-vs-cnn init {shlex.quote(str(root))}` to bring its stages up to date (they run anew), or install "
            "the former again."
        )


def installed_build() -> str:
    """The version of the package and a digest of its files: what is built between two releases has the same version.

    A repository and the wheel that is built of it have the same.
    """
    package, template = Path(__file__).parents[1], _template()
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*") if path.suffix in _SUFFIXES}
    contents = {name: path for name, path in files.items() if not name.startswith("template/")}
    for name in _OF_THE_PACKAGE:
        found = (template / name).rglob("*.py") if (template / name).is_dir() else [template / name]
        contents |= {f"template/{path.relative_to(template).as_posix()}": path for path in found}
    lines = [f"{name} {digest_of(path.read_bytes())}" for name, path in sorted(contents.items())]
    digest = digest_of("\n".join(lines).encode())[:10]
    return f"{version('vit-vs-cnn')}+{digest}"


def _template() -> Path:
    """Where the files of a project are: in the installed package, or in the repository that it is run from."""
    package = Path(__file__).parents[1]
    packaged = package / "template"
    return packaged if packaged.is_dir() else package.parents[1]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
