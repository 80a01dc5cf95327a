"""What `vit-vs-cnn up` refuses before it starts anything."""

import socket

import psutil
import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.orchestration.local_services import Ports, up


def test_a_taken_port_is_one_sentence_where_the_system_does_not_say_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: str) -> None:
        raise psutil.AccessDenied  # as macOS does

    monkeypatch.setattr(psutil, "net_connections", denied)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^port {port} is taken by another process: .* with --prefect-port.$"):
            up(Ports(port, port, port, port), 1, print)
