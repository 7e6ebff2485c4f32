"""What every test run has in common: one thread per worker, no network, the same examples every time."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

# Before torch is imported: two workers with two threads each on two cores only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

try:
    import hypothesis
except ImportError:  # the machine that runs tests/gpu need not have it
    pass
else:
    hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
    hypothesis.settings.load_profile("suite")


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def _local(host: object) -> bool:
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(name.split("%")[0]).is_loopback or name in ("0.0.0.0", "::")
    except ValueError:
        return False


def _guard(address: Any) -> None:
    if isinstance(address, tuple) and not _local(address[0]):
        raise NetworkBlocked(f"the tests do not use the network, and something connects to {address[0]!r}")


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Any:
    """Loopback stays open: torch.distributed needs it."""
    kept = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
    lookup = socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> Any:
        _guard(address)
        return kept["connect"](self, address)

    def connect_ex(self: socket.socket, address: Any) -> Any:
        _guard(address)
        return kept["connect_ex"](self, address)

    def sendto(self: socket.socket, *args: Any) -> Any:
        _guard(args[-1])
        return kept["sendto"](self, *args)

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _guard((host,))
        return lookup(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket.socket, "connect_ex", connect_ex)
        patch.setattr(socket.socket, "sendto", sendto)
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(autouse=True)
def _same_start() -> Any:
    """Tests neither depend on nor leave behind a global seed or a default dtype or device."""
    torch.manual_seed(0)
    yield
    assert torch.get_default_dtype() == torch.float32, "a test or the package changed torch's default dtype"
    assert torch.get_default_device().type == "cpu", "a test or the package changed torch's default device"


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of measured data named by SCIML_REAL_DATA; the test is skipped without one."""
    folder = os.environ.get("SCIML_REAL_DATA")
    if not folder:
        pytest.skip("needs measured data: set SCIML_REAL_DATA to the folder")
    return Path(folder)
