"""The example that users copy: one number pinned, and everything a catalogue entry can do."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

import sciml

FILE = str(Path(__file__).resolve().parents[2] / "examples" / "plate.py")


def test_a_problem_file_is_a_catalogue_entry() -> None:
    plate = sciml.problem(FILE, n=(40, 24))
    solution = sciml.solve(plate)
    assert solution.ok
    assert abs(float(solution.value[0, 0, 20, 12]) - 0.62099798) < 1e-7  # the gate of 1e-10 leaves about 1e-9
    batch = sciml.problem(FILE, n=(20, 12), batch=3, seed=1)
    assert batch.batch == 3 and sciml.solve(batch).ok
    back = pickle.loads(pickle.dumps(batch))
    assert torch.equal(back.operator.coefficient, batch.operator.coefficient)
