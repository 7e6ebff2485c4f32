"""What every solver promises, as functions from (solver, problem) to a list of sentences; empty where it is kept.

The tests ask them of every `example()` in the package, and of broken twins that they must reject.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sciml.core import Code, Context, Evolution, Inverse, Iterative, Solution, SolveError
from sciml.domains.errors import InputError
from sciml.solving import solve

Promise = Callable[[Any, Any], list[str]]
ROOT = Path(__file__).resolve().parents[2]


def files(folder: str) -> list[ModuleType]:
    """The method files of a folder of the package."""
    found = sorted((ROOT / "sciml" / folder).glob("[!_]*.py"))
    return [importlib.import_module(f"sciml.{folder}.{path.stem}") for path in found]


def short(file: ModuleType) -> str:
    return file.__name__.rsplit(".", 1)[-1]


def solved(problem: Any, solver: Any, **settings: Any) -> Solution:
    """The solution, also where `solve` raises or warns because no certificate was earned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return solve(problem, solver, **settings)
        except SolveError as error:
            return error.solution


def named(promise: Promise) -> str:
    return promise.__name__


def main_name(problem: Any) -> str:
    """The tensor that the walk varies: the source, the start, the data, or the first one there is."""
    names = list(problem.parameters())
    return next((name for name in ("source", "start") if name in names), names[0])


def several(problem: Any) -> Any:
    """Three members: the problem with its main tensor times 1, 1/2 and 1/4."""
    name = main_name(problem)
    tensor = problem.parameters()[name]
    scales = torch.tensor([1.0, 0.5, 0.25], dtype=tensor.dtype, device=tensor.device)
    if tensor.ndim == 0:
        return problem.replace(**{name: tensor * scales})
    return problem.replace(**{name: tensor[:1] * scales.reshape(-1, *[1] * (tensor.ndim - 1))})


def elsewhere(thing: Any, device: str) -> Any:
    """A copy of anything made of tensors, on another device."""
    if isinstance(thing, Tensor | nn.Module):
        return copy.deepcopy(thing).to(device)
    if isinstance(thing, torch.device):
        return torch.device(device)
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(elsewhere(item, device) for item in thing))
    if isinstance(thing, list | tuple):
        return type(thing)(elsewhere(item, device) for item in thing)
    if isinstance(thing, Mapping):
        return {key: elsewhere(value, device) for key, value in thing.items()}
    if hasattr(thing, "__dict__") and not isinstance(thing, type) and not callable(getattr(thing, "__code__", None)):
        twin = copy.copy(thing)
        for key, value in vars(thing).items():
            object.__setattr__(twin, key, elsewhere(value, device))
        return twin
    return thing


def accepts(solver: Any, problem: Any) -> list[str]:
    """It accepts its own example."""
    reason = solver.accepts(problem)
    return [f"refuses its own example: {reason}"] if reason is not None else []


def refuses_in_a_sentence(solver: Any, others: list[Any]) -> list[str]:
    """Of any problem it says None or one sentence; what it refuses, `solve` refuses with that sentence."""
    faults = []
    for problem in others:
        reason = solver.accepts(problem)
        if reason is None:
            continue
        if not isinstance(reason, str) or len(reason.split()) < 3 or "\n" in reason:
            faults.append(f"says {reason!r} of {problem.name!r}, which is no sentence")
            continue
        try:
            solve(problem, solver)
        except InputError as error:
            if reason not in str(error):
                faults.append(f"the refusal of {problem.name!r} does not say why")
        except SolveError:
            faults.append(f"is asked to solve {problem.name!r}, which it does not accept")
        else:
            faults.append(f"solves {problem.name!r}, which it says it does not accept")
    return faults


def solves(solver: Any, problem: Any) -> list[str]:
    """The certificate is earned, by checks that were made; the value has the problem's shape, dtype and device."""
    solution = solved(problem, solver)
    faults = [] if solution.ok else [f"no certificate: {solution}"]
    return faults + well_formed(solution, problem)


def answers(solver: Any, problem: Any) -> list[str]:
    """For learned solvers: whatever the verdict, it is the problem's."""
    solution = solved(problem, solver)
    faults = [] if solution.code < Code.BREAKDOWN else [f"fails: {solution}"]
    return faults + well_formed(solution, problem)


def well_formed(solution: Solution, problem: Any) -> list[str]:
    """Shapes, dtype, device, a code for every member, checks with gates, costs."""
    space, batch = problem.space, problem.batch
    times = (len(problem.times),) if isinstance(problem, Evolution) else ()
    faults = []
    if solution.value.shape != (batch, *times, *space.shape):
        faults.append(f"value of shape {tuple(solution.value.shape)}, not {(batch, *times, *space.shape)}")
    if solution.value.dtype != space.dtype or solution.value.device != space.device:
        faults.append(f"value is {solution.value.dtype} on {solution.value.device}, the space {space.dtype}")
    if solution.codes.shape != (batch,):
        faults.append(f"codes of shape {tuple(solution.codes.shape)} for {batch} members")
    if solution.ok and not any(check.target is not None for check in solution.checks):
        faults.append("certified, and no gate was asked")
    if any(check.value.shape != (batch,) for check in solution.checks):
        faults.append("a check without a number for every member")
    if not {"steps", "seconds"} <= set(solution.stats):
        faults.append(f"stats tell {sorted(solution.stats)}, not steps and seconds")
    return faults


def repeats(solver: Any, problem: Any) -> list[str]:
    """Two runs give the same bits, whatever the global seed."""
    torch.manual_seed(1)
    one = solved(problem, solver)
    torch.manual_seed(2)
    two = solved(problem, solver)
    return [] if torch.equal(one.value, two.value) else ["two runs differ"]


def batches(solver: Any, problem: Any) -> list[str]:
    """A batch is the stack of its members.

    Members take the same steps as alone, only sums run in another order: they agree to the machine's precision times the
    condition of these small problems (below 1e5), relative to the size of the member. Implicit time steps iterate until
    the last member of the batch has settled, so the others may gain a little: a thousandth of the target.
    """
    rounding = 1e-3 * problem.targets["steps"] if isinstance(problem, Evolution) else 1e-10
    batch = several(problem)
    together = solved(batch, solver)
    faults = well_formed(together, batch)
    for i in range(3):
        alone = solved(batch.member(i), solver)
        away = float(problem.space.norm(together.value[i : i + 1] - alone.value).max())
        size = float(problem.space.norm(alone.value).max())
        if not away <= rounding * size:
            faults.append(f"member {i} of the batch is {away / size:.1e} away from the same member alone")
        if together.codes[i] != alone.codes[0]:
            faults.append(f"member {i} ends as {together.codes[i]} in the batch and {alone.codes[0]} alone")
    return faults


def handed_over(solution: Solution, problem: Any) -> Any:
    """What the problem is asked to judge once more: the value, or, of an inverse problem, the whole answer with its dual."""
    if not isinstance(problem, Inverse):
        return solution.value
    return solution.solver.run(problem.blind(), None, Context())


def honest(solver: Any, problem: Any) -> list[str]:
    """With a budget of two steps it claims no more than it reached; the problem's certificate agrees with the code."""
    if "max_steps" not in {field.name for field in dataclasses.fields(solver)}:
        return []
    solution = solved(problem, dataclasses.replace(solver, max_steps=2))
    faults = []
    if solution.stats["steps"] > 2:
        faults.append(f"took {solution.stats['steps']} steps of 2")
    if not solution.ok and solution.code not in (Code.BUDGET, Code.UNCERTIFIED):
        faults.append(f"ends as {solution.code.name} after two steps")
    if not isinstance(problem, Evolution):
        passed = all(bool(check.passed.all()) for check in problem.certify(handed_over(solution, problem)))
        if solution.ok != passed:
            faults.append(f"the code is {solution.code.name} and the certificate says {passed}")
    return faults


def pickles(solver: Any, problem: Any) -> list[str]:
    """The pickled solver gives the same bits."""
    twin = pickle.loads(pickle.dumps(solver))
    same = torch.equal(solved(problem, twin).value, solved(problem, solver).value)
    return [] if same else ["the pickled solver gives another answer"]


def refuses_nan(solver: Any, problem: Any) -> list[str]:
    """One value that is not a number is bad input, named."""
    name = main_name(problem)
    bad = problem.parameters()[name].clone()
    bad.view(-1)[bad.numel() // 2] = float("nan")
    try:
        solve(problem.replace(**{name: bad}), solver)
    except InputError as error:
        return [] if name in str(error) else [f"the refusal does not name {name!r}: {error}"]
    return [f"a {name} that is not a number is accepted"]


def single_precision(solver: Any, problem: Any) -> list[str]:
    """In float32 it answers in float32, and the certificate has a target for that."""
    low = problem.to(torch.float32)
    if solver.accepts(low) is not None:
        return [f"refuses float32: {solver.accepts(low)}"]
    solution = solved(low, solver)
    faults = well_formed(solution, low)
    return faults if solution.ok else [*faults, f"no certificate in float32: {solution}"]


def keeps_its_input(solver: Any, problem: Any) -> list[str]:
    """It changes neither the problem's tensors nor the start."""
    before = {name: tensor.clone() for name, tensor in problem.parameters().items()}
    space = problem.space
    start = (
        None
        if isinstance(problem, Evolution)
        else torch.full((1, *space.shape), 0.1, dtype=space.dtype, device=space.device)
    )
    solved(problem, solver, start=start)
    after = problem.parameters()
    faults = [f"changes the {name}" for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if start is not None and not torch.equal(start, torch.full_like(start, 0.1)):
        faults.append("changes the start")
    return faults


def steps_anywhere(solver: Any, problem: Any) -> list[str]:
    """One step of an iterative solver with all tensors on another device: none may be left on the CPU.

    The device is `meta`, under fake tensors: a build of torch without CUDA refuses even fake tensors on a GPU.
    """
    if not isinstance(solver, Iterative):
        return []
    setup = solver.setup(problem)
    state = solver.init(problem, setup, None)
    there, setup_there = problem.to(device="meta"), elsewhere(setup, "meta")
    state_there = elsewhere(state, "meta")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        try:
            new = solver.step(there, setup_there, state_there)
            measured = solver.measure(there, setup_there, new)
        except (RuntimeError, NotImplementedError) as error:
            return [f"a step on another device: {str(error).splitlines()[0]}"]
        faults = [] if measured.device.type == "meta" else ["measures on the CPU"]
        for field in dataclasses.fields(new):
            old, now = getattr(state, field.name), getattr(new, field.name)
            if isinstance(old, Tensor) and isinstance(now, Tensor):
                if now.device.type != "meta":
                    faults.append(f"state.{field.name} is on the CPU after a step")
                if (now.shape, now.dtype) != (old.shape, old.dtype):
                    faults.append(f"state.{field.name} turns from {old.dtype} {old.shape} into {now.dtype} {now.shape}")
    return faults


SOLVER = (
    accepts,
    solves,
    repeats,
    batches,
    honest,
    pickles,
    refuses_nan,
    single_precision,
    keeps_its_input,
    steps_anywhere,
)
LEARNED = (accepts, answers, repeats, honest, pickles, refuses_nan, keeps_its_input)
