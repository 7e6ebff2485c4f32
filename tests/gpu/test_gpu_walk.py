"""The same contract on a GPU: every solver's and every network's example(), beside the same on the CPU."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import walk

from sciml.core import Evolution

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NETWORKS, SOLVERS, LEARNED = (walk.files(folder) for folder in ("networks", "solvers", "learned"))


@pytest.mark.parametrize("promise", [walk.solves, walk.batches, walk.honest, walk.refuses_nan], ids=walk.named)
@pytest.mark.parametrize("file", SOLVERS, ids=walk.short)
def test_solver(file: ModuleType, promise: walk.Promise) -> None:
    solver, problem = file.example()
    assert not promise(solver, problem.to(device="cuda"))


@pytest.mark.parametrize("file", SOLVERS, ids=walk.short)
def test_solver_agrees_with_the_cpu(file: ModuleType) -> None:
    """Both are certified, so both lie within the target times the condition number (below 1e5) of the solution."""
    solver, problem = file.example()
    here = walk.solved(problem, solver).value
    there = walk.solved(problem.to(device="cuda"), solver).value.cpu()
    allowed = 1e-5 if isinstance(problem, Evolution) else 1e5 * max(problem.targets.values())
    assert float((here - there).abs().max()) <= allowed * float(here.abs().max())


@pytest.mark.parametrize("file", LEARNED, ids=walk.short)
def test_learned(file: ModuleType) -> None:
    solver, problem = file.example()
    assert not walk.answers(walk.elsewhere(solver, "cuda"), problem.to(device="cuda"))


@pytest.mark.parametrize("file", NETWORKS, ids=walk.short)
def test_network_agrees_with_the_cpu(file: ModuleType) -> None:
    """float32 sums of at most a few hundred terms in another order, through a few layers; TF32 is off."""
    network, x = file.example()
    here = network(x).detach()
    there = network.to("cuda")(x.to("cuda"))
    there.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(there.detach().cpu(), here, rtol=1e-4, atol=1e-4 * float(here.abs().max()))
