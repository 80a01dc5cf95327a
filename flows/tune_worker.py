"""One more worker for a tuning study as a Prefect flow, `vit-vs-cnn/tune-worker`."""

import subprocess
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from vit_vs_cnn.core.process import exit_with_parent, stop_tree


@flow(name="vit-vs-cnn", flow_run_name="tune-{contestant}", description="Joins the tuning study of a contestant.")
def tune_worker(contestant: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", examples=["vit"])]) -> State[Any]:
    """Work on the tuning study of a contestant until its budget is used up.

    Args:
        contestant: The one whose study to join, a key of `models:` in params.yaml, for example `vit`.
    """
    logger, last = get_run_logger(), ""
    command = exit_with_parent("vit_vs_cnn", "tune", contestant, "--join")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            for line in process.stdout or ():
                last = line.rstrip() or last
                logger.info(line.rstrip())
        except BaseException:
            stop_tree(process)
            raise
    return Completed(message=last) if process.returncode == 0 else Failed(message=last.removeprefix("error: "))
