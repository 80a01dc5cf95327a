"""The command `vit-vs-cnn`: one sub-command per stage, and what a person needs around them."""

import signal
import sys

import click

from vit_vs_cnn.cli.data import data
from vit_vs_cnn.cli.init import init
from vit_vs_cnn.cli.maintenance import clean, deploy, doctor, sync, up
from vit_vs_cnn.cli.pipeline import STAGES, params, run, tune
from vit_vs_cnn.cli.registry import registry
from vit_vs_cnn.cli.serving import predict, serve
from vit_vs_cnn.cli.study import study
from vit_vs_cnn.core.console import printable
from vit_vs_cnn.core.disk import disk_refusal
from vit_vs_cnn.core.errors import GateRejectedError, GateUndecidedError, RunError, UserError, write_error_report
from vit_vs_cnn.core.process import Terminated, end_on_signals, exit_with_dvc
from vit_vs_cnn.core.start_up import leave_quickly_after, reach_loopback_directly

USER_MISTAKE = 2
REFUSED_BY_GATE = 3
UNDECIDED_BY_GATE = 4

_EPILOG = """\b
Examples:
  vit-vs-cnn run --preset demo               the whole pipeline on the packaged digits, in minutes
  vit-vs-cnn init pets                       a project of one's own, without a clone
  vit-vs-cnn data pets.zip                   how a folder or archive of images would be read
  vit-vs-cnn run --preset cpu --set data.source=folder --set data.name=pets --set data.path=pets.zip
  vit-vs-cnn study demo                      where one overtakes the other, on the packaged digits
  dvc repro                                  the experiment of params.yaml, in place
  vit-vs-cnn registry promote                the challenger becomes champion if it passes the gate
  vit-vs-cnn doctor                          what this machine lacks, if anything
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="vit-vs-cnn")
def commands() -> None:
    """ViT or CNN? A measured answer on your own images, and a registered model at the end."""


for command in (
    init,
    data,
    *STAGES,
    tune,
    run,
    study,
    params,
    registry,
    predict,
    serve,
    up,
    deploy,
    clean,
    sync,
    doctor,
):
    commands.add_command(command)


def program() -> None:
    """The program `vit-vs-cnn`, a process of its own."""
    leave_quickly_after(main)


def main() -> None:
    """Run the command that sys.argv names: a user's mistake is one sentence and exit code 2."""
    end_on_signals()
    exit_with_dvc()
    reach_loopback_directly()
    try:
        commands(standalone_mode=False)
    except click.exceptions.Abort as abort:
        ended_by = signal.SIGTERM if isinstance(abort.__context__, Terminated) else signal.SIGINT
        _fail("stopped; run the same command again to resume.", 128 + ended_by)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        write_error_report(error)
        _fail(f"error: {error}", USER_MISTAKE)
    except GateUndecidedError as error:
        _fail(f"undecided: {error}", UNDECIDED_BY_GATE)
    except GateRejectedError as error:
        _fail(f"refused: {error}", REFUSED_BY_GATE)
    except RunError as error:
        _fail(f"error: {error}", 1)
    except Exception as error:
        refused = disk_refusal(error)
        if refused is None:
            raise
        write_error_report(refused)
        _fail(f"error: {refused}", USER_MISTAKE)


def _fail(sentence: str, code: int) -> None:
    click.echo(printable(sentence, lines=True), err=True)
    sys.exit(code)
