"""A run killed at any moment goes on to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import xarray

import sciml
from sciml.domains.errors import InputError
from sciml.files import load_tensors
from sciml.networks import FNO
from sciml.training import _state
from sciml.training.fit import fit
from sciml.training.fitted import Fit
from sciml.training.losses import RelativeL2

# One process imports torch once and forks a child per attempt; a timer in the child kills it with SIGKILL.
SCRIPT = """
import os, random, signal, sys, threading, time
import torch
from test_fit_resume import run
torch.set_num_threads(1)
folder, seed, attempts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
run(folder + "/first")  # imports and warms up
begun = time.perf_counter()
run(folder + "/whole")
length = time.perf_counter() - begun
random.seed(seed)
killed = 0
for attempt in range(attempts + 1):
    child = os.fork()
    if child == 0:
        if attempt < attempts:
            delay = random.uniform(0.02, 0.2) * length
            timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        run(folder + "/killed")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
print("killed", killed)
"""


def data() -> xarray.Dataset:
    a = np.random.default_rng(0).normal(size=(40, 12)).cumsum(axis=1)
    return xarray.Dataset({"a": (("sample", "x"), a), "u": (("sample", "x"), a**2)})


def run(folder: str, **settings: object) -> Fit:
    network = FNO(dim=1, modes=4, width=8, layers=2, seed=1)
    defaults = {"inputs": "a", "targets": "u", "epochs": 30, "batch_size": 7, "learning_rate": 1e-2}
    return fit(network, data(), out=folder, **{**defaults, **settings})  # type: ignore[arg-type]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), "3", "8"]
    paths = {"PYTHONPATH": f"{Path(sciml.__file__).parents[1]}:{here}"}
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, check=True)  # noqa: S603
    assert int(done.stdout.split()[-1]) >= 3, done.stdout  # the kills came before the end
    for name in ("checkpoint.safetensors", "last.safetensors"):
        whole, killed = (load_tensors(tmp_path / run / name)[0] for run in ("whole", "killed"))
        assert list(whole) == list(killed)
        assert all(torch.equal(whole[key], killed[key]) for key in whole), name
    rows = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "killed")]
    strip = [[line.rsplit(', "seconds"', 1)[0] for line in lines] for lines in rows]
    assert strip[0] == strip[1] and len(strip[0]) == 30


def test_resume_without_optimizer_state_would_be_seen(tmp_path: Path) -> None:
    """The broken twin: weights alone are restored, Adam starts from nothing."""
    whole = run(str(tmp_path / "whole"), epochs=4)
    path = tmp_path / "part"

    class Stop(Exception):
        pass

    def after_two(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        after_two.calls += 1  # type: ignore[attr-defined]
        if after_two.calls > 13:  # type: ignore[attr-defined]
            raise Stop
        return RelativeL2()(prediction, target)

    after_two.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(Stop):
        run(str(path), epochs=4, loss=after_two)
    after_two.calls = -1000  # type: ignore[attr-defined]
    model, best, state, facts = _state.load_run(path / "last.safetensors")
    assert facts["epoch"] == 2 and state
    good = run(str(path), epochs=4, loss=after_two)
    same = [torch.equal(a, b) for a, b in zip(whole.network.parameters(), good.network.parameters(), strict=True)]
    assert all(same)

    with pytest.raises(InputError, match="learning_rate"):
        run(str(path), epochs=4, loss=after_two, learning_rate=2e-2)
    after_two.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(Stop):
        run(str(path), epochs=4, loss=after_two, resume=False)
    after_two.calls = -1000  # type: ignore[attr-defined]

    def forget(where: Path) -> object:
        model, best, _, facts = _state.load_run(where)
        return model, best, {}, facts

    with patch("sciml.training.fit.load_run", forget):
        broken = run(str(path), epochs=4, loss=after_two)
    same = [torch.equal(a, b) for a, b in zip(whole.network.parameters(), broken.network.parameters(), strict=True)]
    assert not all(same)


def test_finished_run_returns_at_once(tmp_path: Path) -> None:
    first, second = run(str(tmp_path), epochs=3), run(str(tmp_path), epochs=3)
    assert first.history == second.history and first.best_error == second.best_error
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "words"), [({"epochs": 5}, "epochs"), ({"seed": 3}, "seed"), ({"normalise": False}, "normalise")]
)
def test_other_settings_are_refused(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    run(str(tmp_path), epochs=2)
    with pytest.raises(InputError, match=words):
        run(str(tmp_path), **{"epochs": 2, **settings})


def test_other_data_and_other_networks_are_refused(tmp_path: Path) -> None:
    run(str(tmp_path), epochs=2)
    settings = {"inputs": "a", "targets": "u", "epochs": 2, "batch_size": 7, "learning_rate": 1e-2, "out": tmp_path}
    with pytest.raises(InputError, match="network settings"):
        fit(FNO(dim=1, modes=4, width=9, layers=2, seed=1), data(), **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="training data"):
        fit(FNO(dim=1, modes=4, width=8, layers=2, seed=1), data() * 1.5, **settings)  # type: ignore[arg-type]
