"""Install this project and all that it needs into the environment of the Python that runs this.

    .venv/bin/python install.py '.[dev]'

uv installs in a fraction of pip's time: the one on PATH, or one that is installed into the environment first. It gets
pip's settings (environment and pip.conf), so that a mirror that pip knows serves both. Where uv fails, pip installs.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = ("--constraint", "constraints.txt")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# uv's names for what pip's settings are called, and what separates several values.
UV_NAMES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
}


def main() -> None:
    """Install the packages that the command line names, this project in place."""
    wanted = [*CONSTRAINTS, "--editable", *sys.argv[1:]]
    uv = find_uv()
    if uv is not None:
        # Modules are compiled once, here, rather than by the first stage that imports them.
        command = [uv, "pip", "install", "--python", sys.executable, "--quiet", "--compile-bytecode", *wanted]
        if succeeds(command, uv_environment()):
            check([uv, "pip", "check", "--python", sys.executable, "--quiet"])
            return
        print("uv could not install the packages, for the reason above; pip tries now, for some minutes.", flush=True)
    if not succeeds([*PIP, "install", "--quiet", *wanted]):
        sys.exit(
            "error: neither uv nor pip could install the packages, for the reason above. `pip config list` shows which "
            "package index and certificate they use; `pip config set global.index-url URL` chooses a mirror."
        )
    check([*PIP, "check"])


def find_uv() -> str | None:
    """The path of uv, which is installed into the environment where it is not on PATH; None where that fails."""
    found = shutil.which("uv")
    if found is not None:
        return found
    own = Path(sys.executable).with_name("uv")
    if not own.is_file() and not succeeds([*PIP, "install", "--quiet", "--only-binary", ":all:", "uv"]):
        print("uv cannot be installed, for the reason above; pip installs the packages, in some minutes.", flush=True)
        return None
    return str(own)


def uv_environment() -> dict[str, str]:
    """The environment for uv: this one, and pip's settings by uv's names as far as it has none of its own."""
    # As pip: the best version of all indexes, the certificates of the system or those that these variables name.
    environment = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "true"}
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name):
            environment["SSL_CERT_FILE"] = os.environ[name]
    for setting, value in pip_settings().items():
        if setting in UV_NAMES and value:
            name, separator = UV_NAMES[setting]
            environment[name] = separator.join(value.split())
    return environment | os.environ


def pip_settings() -> dict[str, str]:
    """What pip would use, of its files and its environment variables; the latter count more."""
    answer = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in answer.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, setting = key.rpartition(".")
        if section in found:
            found[section][setting] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def succeeds(command: list[str], environment: dict[str, str] | None = None) -> bool:
    """Whether the command ends with exit code 0; what it says is shown."""
    try:
        return subprocess.run(command, env=environment, check=False).returncode == 0
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return False


def check(command: list[str]) -> None:
    """Stop where the installed packages do not fit together."""
    if not succeeds(command):
        sys.exit("error: the installed packages do not fit together, for the reason above.")


if __name__ == "__main__":
    main()
