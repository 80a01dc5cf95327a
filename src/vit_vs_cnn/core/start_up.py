"""Processes that start and end in little time: imports without what nothing here uses, an end without tidying up."""

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
# Processes that want a core, for each that there is, in the last minute: one training by itself has one.
_BUSY = 1.5


@contextmanager
def without_collecting() -> Iterator[None]:
    """Import libraries without looking for garbage among what they make: it stays, and the search doubles the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def reach_loopback_directly() -> None:
    """Have no client ask the proxy of the environment, if there is one, for the servers of this machine."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    # A star stands for every host, but not in a list.
    if known != "*" and {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} & os.environ.keys():
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [known, "127.0.0.1", "localhost"]))


def sleep_while_waiting_where_busy() -> None:
    """On a busy machine have OpenMP's threads sleep while they wait; call it before PyTorch is imported.

    They spin, which is twice as fast where each has a core, and several times slower where others want it
    (benchmarks/wait_policy.py).
    """
    if os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def leave_quickly_after(main: Callable[[], object]) -> None:
    """Run the whole of this process, which then ends after its exit functions, with its exit code.

    Python would take every module apart as well: a second with PyTorch. An exception that is not caught ends the
    process as usual.
    """
    codes: list[int] = []

    def leave() -> None:
        if codes:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])

    # The functions that are registered after this one run before it.
    atexit.register(leave)
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            codes.append(ended.code or 0)
        raise
    codes.append(0)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Import libraries as if these modules, which they can do without, were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    # What Python's import system takes for "there is no such module".
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import torchvision and timm without PyTorch's compiler, of which they need nothing before something is compiled.

    They decorate functions with its `disable`, and import a function of it for an operator on boxes. For whatever else
    they ask, the compiler is imported.
    """
    if _COMPILER in sys.modules:
        yield
        return
    name = f"{_COMPILER}.utils"
    utils = _StandIn(name, is_compile_supported=lambda *given: import_module(name).is_compile_supported(*given))
    sys.modules.update({_COMPILER: _StandIn(_COMPILER, utils=utils, disable=_unchanged), name: utils})
    try:
        yield
    finally:
        _remove_stand_ins()


class _StandIn(ModuleType):
    """Stands in for a module with some `names` until one is asked for that it does not have."""

    def __init__(self, module: str, **names: object) -> None:
        super().__init__(module)
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        # Python asks every module for its file, and where it looks for names in it, whether it is a package.
        if name == "__file__" or (name == "__path__" and self.__name__ != _COMPILER):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        del sys.modules[name]


def _unchanged(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
    return function
