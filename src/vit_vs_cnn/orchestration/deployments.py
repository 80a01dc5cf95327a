"""prefect.yaml on the server: its work pool and its deployments, for the folder where the project is now."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vit_vs_cnn.core.errors import RunError
from vit_vs_cnn.orchestration.prefect_client import client_at

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "local"
ROOT_VARIABLE = "VIT_VS_CNN_ROOT"


def deploy(root: Path, environment: Mapping[str, str]) -> None:
    """Create or bring up to date the work pool and all deployments of prefect.yaml.

    A schedule that a person switched on or off stays as it was. Raises RunError where Prefect refuses.
    """
    with client_at(environment["PREFECT_API_URL"]) as client:
        _ensure_pool(client)
        switched = _switches(client)
    answer = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env={**os.environ, **environment, ROOT_VARIABLE: str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise RunError(f"prefect.yaml cannot be deployed: {answer.stdout.strip()} {answer.stderr.strip()}")
    with client_at(environment["PREFECT_API_URL"]) as client:
        _switch_back(client, switched)


def _ensure_pool(client: "SyncPrefectClient") -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    except ObjectAlreadyExists:
        return


def _switches(client: "SyncPrefectClient") -> dict[str, bool]:
    return {
        deployment.name: schedule.active
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
    }


def _switch_back(client: "SyncPrefectClient", switched: dict[str, bool]) -> None:
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            wanted = switched.get(deployment.name, schedule.active)
            if wanted != schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=wanted)
