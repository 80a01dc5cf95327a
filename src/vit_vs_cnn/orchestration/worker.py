"""The worker of `vit-vs-cnn up`: it runs this project's flows as deploy/local.yaml declares them, and nothing else.

Prefect's own worker runs whatever a deployment names: any shell command as a pull step, any file as an entrypoint.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import click
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult
from ruamel.yaml import YAML

from vit_vs_cnn.core.errors import RunError
from vit_vs_cnn.core.paths import main_root

_WORKING_DIRECTORY = "prefect.deployments.steps.set_working_directory"


class ProjectWorker(ProcessWorker):
    """A process worker that refuses every deployment which is not one of deploy/local.yaml."""

    async def run(
        self, flow_run: FlowRun, configuration: ProcessJobConfiguration, task_status: Any = None
    ) -> ProcessWorkerResult:
        """Run a flow run. Raises RunError, which makes it crashed, where deploy/local.yaml does not declare it so."""
        deployment = await self.client.read_deployment(flow_run.deployment_id) if flow_run.deployment_id else None
        refuse_foreign(deployment, flow_run.job_variables or {}, main_root())
        return await super().run(flow_run, configuration, task_status)


def refuse_foreign(deployment: DeploymentResponse | None, job_variables: dict[str, Any], root: Path) -> None:
    """Raise RunError unless deploy/local.yaml declares this entrypoint, and nothing else would run before it."""
    declared = YAML(typ="safe").load(root / "deploy/local.yaml")["deployments"]
    entrypoints = {entry["entrypoint"] for entry in declared}
    if deployment is None or deployment.entrypoint not in entrypoints:
        refused = "its entrypoint"
    elif deployment.pull_steps != [{_WORKING_DIRECTORY: {"directory": str(root)}}]:
        refused = "its pull steps"
    elif job_variables or deployment.job_variables or deployment.storage_document_id:
        refused = "its job variables or its storage"
    else:
        return
    raise RunError(f"refused: deploy/local.yaml declares no deployment with {refused}; this worker runs no other.")


@click.command()
@click.option("--pool", required=True, help="The work pool that it serves.")
@click.option("--name", required=True, help="Its name in Prefect's pages.")
@click.option("--limit", required=True, type=int, help="Flow runs at once.")
def main(pool: str, name: str, limit: int) -> None:
    """Serve a work pool until SIGINT or SIGTERM, with a health check."""
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    worker = ProjectWorker(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False)
    asyncio.run(worker.start(with_healthcheck=True))


if __name__ == "__main__":
    main()
