"""`vit-vs-cnn up` for a small project."""

import signal
import subprocess
from typing import Any

import psutil

from harness.signals import in_background
from harness.small_project import SmallProject, ask_json, wait_for
from vit_vs_cnn.orchestration.prefect_server import free_port


class Server:
    """`vit-vs-cnn up` for a small project, and questions to its API."""

    def __init__(self, small: SmallProject) -> None:
        self.small = small
        self.ports = [free_port() for _ in range(3)]
        self.optuna_port = free_port()
        self.log = small.root.parent / "up.log"
        self.start()

    def start(self) -> None:
        options = zip(("--prefect-port", "--mlflow-port", "--worker-port"), map(str, self.ports), strict=True)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                in_background(
                    self.small.command(
                        "up", *(part for option in options for part in option), "--optuna-port", str(self.optuna_port)
                    )
                ),
                cwd=self.small.root,
                env=self.small.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(lambda: "Ctrl-C stops" in self.log.read_text() or self.process.poll() is not None)
        except AssertionError:
            self.process.kill()  # its children end with it
            raise
        assert self.process.poll() is None, self.log.read_text()

    def stop(self, sent: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(sent)
        assert self.process.wait(300) == 0

    def process_tree(self) -> list[psutil.Process]:
        """What `up` has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        return ask_json(f"http://127.0.0.1:{self.ports[0]}/api/{path}", body, method, self.key())

    def key(self) -> str:
        return (self.small.root / ".vit-vs-cnn/prefect/api-key").read_text()

    def deployment(self, name: str = "local") -> dict[str, Any]:
        return self.ask(f"deployments/name/vit-vs-cnn/{name}")

    def submit(self, **parameters: Any) -> str:
        return self.submit_to("local", **parameters)

    def submit_to(self, deployment: str, **parameters: Any) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.ask(f"deployments/{self.deployment(deployment)['id']}/create_flow_run", body)["id"]

    def state(self, flow_run: str) -> dict[str, Any]:
        return self.ask(f"flow_runs/{flow_run}")["state"]

    def end(self, flow_run: str, seconds: float = 600) -> dict[str, Any]:
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_for(lambda: self.state(flow_run)["type"] in final, seconds)
        return self.state(flow_run)

    def run(self, **parameters: Any) -> dict[str, Any]:
        return self.run_of("local", **parameters)

    def run_of(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        return self.end(self.submit_to(deployment, **parameters))

    def tasks(self, flow_run: str) -> dict[str, dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": [flow_run]}}}
        return {task["name"]: task for task in self.ask("task_runs/filter", body)}

    def task_states(self, flow_run: str) -> dict[str, str | None]:
        """Prefect learns of tasks by events, possibly after the run's end: None where there is no state yet."""
        return {name: task["state"] and task["state"]["name"] for name, task in self.tasks(flow_run).items()}

    def messages(self, flow_run: str) -> list[str]:
        """Log lines of the flow run and its tasks, as far as Prefect has them: the last ones follow the final state."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run]}}}
        return [log["message"] for log in self.ask("logs/filter", body)]
