"""Files are whole or absent, whatever interrupts the writing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.domains.errors import InputError
from sciml.files import load_json, load_tensors, save_json, save_tensors, write_atomic

WRITER = """
import sys, torch
from sciml.files import save_tensors
for step in range(1, 100000):
    save_tensors(sys.argv[1], {"w": torch.full((40000,), float(step)), "step": torch.tensor(step)}, {"step": str(step)})
"""


def test_round_trip(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 4, dtype=torch.float64).T, "n": torch.arange(3), "c": torch.ones(2) > 0}
    save_tensors(tmp_path / "deep" / "a.safetensors", tensors, {"recipe": "{}"})
    found, text = load_tensors(tmp_path / "deep" / "a.safetensors")
    assert text == {"recipe": "{}"} and all(torch.equal(found[name], tensors[name]) for name in tensors)
    save_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert load_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}
    with pytest.raises(InputError, match="finite"):
        save_json(tmp_path / "a.json", float("nan"))
    assert load_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}


def test_killed_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for wait in (0.013, 0.05, 0.03):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists():
            assert writer.poll() is None, "the writer ended before it wrote anything"
            time.sleep(0.01)
        time.sleep(wait)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        found, text = load_tensors(path)
        assert (found["w"] == found["step"]).all() and text["step"] == str(int(found["step"]))
        path.unlink()


def test_disk_full_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"a\.bin.*disk is full"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="part of its path is a file"):
        write_atomic(tmp_path / "file" / "a", b"")
    with pytest.raises(InputError, match="is a folder"):
        write_atomic(tmp_path, b"")

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(InputError, match="permission denied"):
        write_atomic(tmp_path / "a", b"")


@pytest.mark.parametrize("part", [0, 5, 60, 200])
def test_damaged(tmp_path: Path, part: int) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"w": torch.zeros(100)})
    os.truncate(path, part)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        load_tensors(path)
    with pytest.raises(InputError, match="not whole JSON"):
        load_json(path)
    for load in (load_json, load_tensors):
        with pytest.raises(InputError, match="no file"):
            load(tmp_path / "none")
