"""The services of deploy/compose.yaml as processes on loopback: each with its own command, environment and secrets.

What containers would give them is put in its place: free ports for the published ones, folders for volumes, loopback
for the names of services. PostgreSQL and the object store, whose images are others' work, are a real PostgreSQL server
and moto's server. Each service waits for those that it depends on, by their own health checks.
"""

import configparser
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from factories import REPOSITORY
from harness.object_store import start_store
from harness.postgres import database_server
from harness.small_project import wait_for
from vit_vs_cnn.core.process import stop_tree
from vit_vs_cnn.orchestration.prefect_server import answers, free_port

COMPOSE = REPOSITORY / "deploy" / "compose.yaml"
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}|(\$))")
_NAMES = re.compile(r"\b(postgres|store|mlflow|prefect|localhost)(?=:\d)")


def compose_services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE)["services"])


class Stack:
    """Started services, and how a program of the host reaches them."""

    def __init__(self, folder: Path, variables: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.folder, self._variables, self._environment = folder, variables, environment
        self._services = compose_services()
        self.ports = {port: free_port() for port in (5432, 8333, 5000, 4200, 8080, 8000)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secrets = folder / "secrets"
        self.exits = ExitStack()
        subprocess.run(
            [REPOSITORY / "deploy" / "secrets.sh"], env={**os.environ, "SECRETS": str(self.secrets)}, check=True
        )

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def up(self, name: str) -> None:
        """Start a service, after those that it depends on, and wait until it is healthy or has done its work."""
        if name in self.processes:
            return
        service = self._services[name]
        for needed in service.get("depends_on", {}):
            self.up(needed)
        if name == "postgres":
            self._start_postgres(service)
        elif name == "store":
            keys = configparser.ConfigParser()
            keys.read(self.secrets / "s3_credentials")
            identities = json.loads(self.secret("s3_identities"))["identities"]
            key = keys["default"]["aws_access_key_id"]
            assert [(each["accessKey"], each["secretKey"]) for each in identities[0]["credentials"]] == [
                (key, keys["default"]["aws_secret_access_key"])
            ]
            self.processes[name] = start_store(self.ports[8333], key)
            self.exits.callback(self.processes[name].kill)
            wait_for(lambda: answers(f"http://127.0.0.1:{self.ports[8333]}/moto-api/"))
        else:
            self.start(name)
            if any(each.get("depends_on", {}).get(name, {}).get("condition") == "service_completed_successfully"
                   for each in self._services.values()):  # fmt: skip
                assert self.processes[name].wait(600) == 0, self.log(name)
            else:
                wait_for(lambda: self._is_healthy(name))

    def start(self, name: str) -> None:
        service = self._services[name]
        entrypoint = service.get("entrypoint") or _image_entrypoint()
        command = [self._here(part, name) for part in [*entrypoint, *service.get("command", [])]]
        self.processes[name] = process = subprocess.Popen(
            command, cwd=self.work_folder(name), env=self.environment(name), stdin=subprocess.DEVNULL,
            stdout=(self.folder / f"{name}.log").open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.exits.callback(stop_tree, process, signal.SIGTERM, 15)

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a service, which has nothing of the machine's but its programs."""
        own = self._services[name].get("environment", {})
        return {**self._environment, **{key: self._here(value, name) for key, value in own.items()}}

    def work_folder(self, name: str) -> Path:
        folder = Path(self._variables.get("PROJECT", ".")) if name == "deploy" else self.folder / f"work-{name}"
        folder.mkdir(exist_ok=True)
        return folder

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def client(self, **more: str) -> dict[str, str]:
        """The environment of a person's terminal on this host."""
        keys = configparser.ConfigParser()
        keys.read(self.secrets / "s3_credentials")
        return {
            **self._environment,
            "PREFECT_API_URL": f"http://127.0.0.1:{self.ports[4200]}/api",
            "PREFECT_API_AUTH_STRING": self.secret("prefect_api_key"),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.ports[5000]}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports[8333]}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "VIT_VS_CNN_SIGNING_KEY": str(self.secrets / "signing_key"),
            **{key.upper(): value for key, value in keys["default"].items()},
            **more,
        }

    def _is_healthy(self, name: str) -> bool:
        assert self.processes[name].poll() is None, self.log(name)
        test = [self._here(part, name) for part in self._services[name]["healthcheck"]["test"][1:]]
        return subprocess.run(test, env=self._environment, capture_output=True, check=False).returncode == 0

    def _start_postgres(self, service: Mapping[str, Any]) -> None:
        user = service["environment"]["POSTGRES_USER"]
        password = Path(self._here(service["environment"]["POSTGRES_PASSWORD_FILE"], "postgres")).read_text()
        port = self.exits.enter_context(database_server(user=user, password=password))
        self.ports[5432] = port
        script = (COMPOSE.parent / "databases.sh").read_text().replace("/run/secrets", str(self.secrets))
        where = {"POSTGRES_USER": user, "PGPASSWORD": password, "PGHOST": "127.0.0.1", "PGPORT": str(port)}
        subprocess.run(["sh", "-c", script], env={**self._environment, **where}, check=True)
        self.processes["postgres"] = subprocess.Popen(["true"])

    def _here(self, text: str, service: str) -> str:
        text = _VARIABLE.sub(lambda m: m[3] or self._variables.get(m[1], m[2] or ""), str(text))
        text = _NAMES.sub("127.0.0.1", text.replace("0.0.0.0", "127.0.0.1"))
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        text = text.replace("/run/secrets", str(self.secrets))
        return re.sub(r"(?<![\w.])/state\b", str(self.folder / f"state-{service}"), text)


@contextmanager
def stack_on_loopback(folder: Path, variables: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[Stack]:
    """No service yet; at the end all of them are stopped. `variables` are those of compose's .env."""
    stack = Stack(folder, variables, environment)
    with stack.exits:
        yield stack


def _image_entrypoint() -> list[str]:
    text = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    found = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    assert found
    return [str(part) for part in json.loads(found[1])]
