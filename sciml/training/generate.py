"""Data sets made from the catalogue: draw members, solve them, keep those that are certified."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.files import load_json, load_tensors, save_json, save_tensors

if TYPE_CHECKING:
    from sciml.core.problem import Problem
    from sciml.core.solution import Solution

__all__ = ["generate"]

BLOCK = 32
ATTEMPTS = 5
DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def generate(
    problem: str | os.PathLike[str],
    *,
    count: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    solver: Any = None,
    block: int | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool | None = None,
    **settings: Any,
) -> Path:
    """Draw `count` random members of a catalogue problem, solve them, and write fields and answers to one HDF5 file.

    Only members that the problem certifies as CONVERGED are written; the others are drawn again. Members are solved
    in the problem's own dtype (float64 unless the settings say otherwise) and stored in `dtype`.

    The work is done in blocks of members whose content depends on (seed, number of the block) alone. A block is
    written whole to `out` + ".parts" when it is done, and the blocks are joined at the end, so the same call after a
    kill at any moment goes on and ends with the same bits. Under `torchrun` the processes share the blocks out and
    process 0 joins them. A finished `out` with the same recipe is returned as it is.

    Args:
        problem: name in the catalogue, or path of a problem file; it needs a `draw` function.
        count: members to write.
        out: the file; its layout is PDEBench's, with axes, grid, recipe and certificate in the attributes.
        seed: of the random members.
        solver: instead of the one that the problem recommends.
        block: members solved at once, 32 by default; it is part of the recipe.
        dtype: on disk, float32 or float64.
        progress: True shows a bar on stderr, None does so on a terminal.
        settings: passed to the problem, as in `n=85`.

    Returns:
        The path of `out`.

    Raises:
        InputError: unknown problem or setting, a file of another recipe in the place of `out`, unwritable folder,
            full disk.
        SolveError: five draws in a row did not fill a block with certified members.

    *Fails when* the members that the solver cannot certify are the interesting ones: the attribute `redrawn` counts
    them.
    """
    if count < 1 or (block is not None and block < 1):
        raise InputError(f"generate: count={count} and block={block} must be at least 1.")
    if dtype not in DTYPES:
        raise InputError(f"generate: dtype={dtype} cannot be stored; use torch.float32 or torch.float64.")
    target = Path(out).resolve()
    size = min(count, BLOCK if block is None else block)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    def draw(index: int, attempt: int) -> Problem:
        from sciml import catalogue

        made: Problem = catalogue.problem(problem, batch=size, seed=_seed(seed, index, attempt), **settings)
        return made

    first = draw(0, 0)
    recipe = _recipe(first, count, seed, size, DTYPES[dtype], solver)
    parts = target.with_name(target.name + ".parts")
    if _finished(target, recipe):
        if rank == 0:
            shutil.rmtree(parts, ignore_errors=True)
        return target
    _claim(parts, recipe)
    blocks = -(-count // size)
    with _bar(progress if progress is not None else sys.stderr.isatty() and rank == 0, blocks) as advance:
        for index in range(blocks):
            path = parts / f"{index:06d}.safetensors"
            if index % world == rank and not path.exists():
                _solve_block(path, partial(draw, index), size, solver, dtype)
            advance(index + 1)
    if rank == 0:
        paths = [parts / f"{index:06d}.safetensors" for index in range(blocks)]
        _wait(lambda: all(path.exists() for path in paths))
        _join(target, parts, paths, first, recipe, count)
        shutil.rmtree(parts)
    else:
        _wait(lambda: _finished(target, recipe))
    return target


def _seed(seed: int, index: int, attempt: int) -> int:
    """A seed of 62 bits for one draw of one block."""
    import numpy as np

    high, low = np.random.SeedSequence([abs(seed), int(seed < 0), index, attempt]).generate_state(2, np.uint32)
    return (int(high) << 30) ^ int(low)


def _recipe(first: Problem, count: int, seed: int, block: int, dtype: str, solver: Any) -> dict[str, Any]:
    """All that the file depends on, as JSON values; the settings include those left at their defaults."""
    known: dict[str, Any] = {} if first.recipe is None else json.loads(first.recipe.to_json())
    plain = {name: value for name, value in known.get("settings", {}).items() if name not in ("batch", "seed")}
    made = {
        "source": known.get("source", first.name), "sha256": known.get("sha256", ""), "settings": plain,
        "count": count, "seed": seed, "block": block, "dtype": dtype,
        "solver": "recommended" if solver is None else repr(solver),
    }  # fmt: skip
    result: dict[str, Any] = json.loads(json.dumps(made))
    return result


def _finished(target: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether `target` is there with this recipe.

    Raises:
        InputError: it is there with another, or is another kind of file.
    """
    if not target.exists():
        return False
    from sciml.files import open_dataset

    with open_dataset(target) as data:
        text = data.attrs.get("recipe")
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found == dict(recipe):
        return True
    raise InputError(_differs(f"'{target}' exists and", found, recipe))


def _differs(what: str, found: Any, recipe: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return f"{what} was not made by sciml.generate; choose another out= or move it away."
    name = next((name for name in recipe if found.get(name) != recipe[name]), "settings")
    return (
        f"{what} was made with {name}={found.get(name)!r}, not {recipe.get(name)!r}; choose another out= or delete it."
    )


def _claim(parts: Path, recipe: Mapping[str, Any]) -> None:
    """Make the folder of unfinished blocks, or check that it belongs to this recipe."""
    path = parts / "recipe.json"
    if path.exists():
        found = load_json(path)
        if found != dict(recipe):
            raise InputError(_differs(f"the unfinished blocks in '{parts}'", found, recipe))
    else:
        save_json(path, dict(recipe))


def _solve_block(path: Path, draw: Callable[[int], Problem], size: int, solver: Any, dtype: torch.dtype) -> None:
    """Solve one block, drawing again what was not certified, and write it whole."""
    from sciml.core.solution import Code, SolveError
    from sciml.solving import solve

    rows: list[tuple[dict[str, Tensor], int]] = []
    checks: dict[str, list[float]] = {}
    have, redrawn = 0, 0
    for attempt in range(ATTEMPTS):
        posed = draw(attempt)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # members that fail are drawn again, and counted
            try:
                with torch.no_grad():
                    solution: Solution = solve(posed, solver, progress=False)
            except SolveError as error:
                solution = error.solution
        good = torch.nonzero(solution.codes.cpu() == Code.CONVERGED).flatten()[: size - have]
        redrawn += int((solution.codes != Code.CONVERGED).sum())
        if len(good):
            entries = _entries(posed, solution.value, dtype)
            taken = {name: value if value.shape[0] == 1 else value[good] for name, value in entries.items()}
            rows.append((taken, len(good)))
            have += len(good)
            for check in solution.checks:
                if check.target is not None:
                    worst = float(check.value.detach().cpu().expand(len(solution.codes))[good].max())
                    before = checks.get(check.name, [0.0])[0]
                    checks[check.name] = [max(before, worst), check.target]
        if have == size:
            break
    if have < size:
        raise SolveError(
            f"generate: {ATTEMPTS} draws of {size} members of '{posed.name}' gave {have} that are certified "
            f"({solution.code.name}, {'; '.join(map(str, solution.checks))}); give another solver= or other settings.",
            solution,
        )
    tensors = {name: _stack([(row[name], taken) for row, taken in rows]) for name in rows[0][0]}
    save_tensors(path, tensors, {"checks": json.dumps(checks), "redrawn": str(redrawn)})


def _entries(posed: Problem, value: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Fields, numbers and the answer, each with a leading axis of the batch or of one (the same for all members)."""
    fields = posed.fields
    batch = posed.batch
    found: dict[str, Tensor] = {}
    for name, tensor in posed.parameters().items():
        if name in fields:
            found[name] = tensor.expand(batch, *tensor.shape[1:]) if batch == 1 else tensor
        elif tensor.numel() == 1 or (tensor.numel() == batch and tensor.ndim and tensor.shape[0] == batch):
            found[name] = tensor.reshape(-1)
    found[posed.unknown] = value
    return {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() and tensor.ndim > 1 else tensor.dtype)
        for name, tensor in found.items()
    }


def _stack(pieces: list[tuple[Tensor, int]]) -> Tensor:
    """Rows of several draws as one; what is the same in all of them keeps its leading axis of one."""
    first = pieces[0][0]
    if all(piece.shape[0] == 1 and torch.equal(piece, first) for piece, _ in pieces):
        return first
    return torch.cat([piece.expand(count, *piece.shape[1:]) for piece, count in pieces])


@dataclass(frozen=True)
class _Layout:
    """What the blocks of one file have in common."""

    members: tuple[str, ...]
    shared: tuple[str, ...]
    numbers: dict[str, float]
    checks: dict[str, list[float]]
    redrawn: int


def _survey(paths: list[Path], size: int, fields: set[str]) -> _Layout:
    """Read all blocks once: which entries are the same for all members, and how the members were judged."""
    kept: dict[str, Tensor] = {}
    own: set[str] = set()
    checks: dict[str, list[float]] = {}
    redrawn = 0
    names: list[str] = []
    for path in paths:
        tensors, text = load_tensors(path)
        names = names or sorted(tensors)
        for name, tensor in tensors.items():
            if tensor.shape[0] != 1 or not torch.equal(kept.setdefault(name, tensor), tensor):
                own.add(name)
        for name, (worst, target) in json.loads(text["checks"]).items():
            checks[name] = [max(worst, checks.get(name, [0.0])[0]), target]
        redrawn += int(text["redrawn"])
    if size == 1:
        own |= fields
    same = [name for name in names if name not in own]
    numbers = {name: float(kept[name]) for name in same if kept[name].numel() == 1 and name not in fields}
    shared = tuple(name for name in same if name not in numbers)
    return _Layout(tuple(name for name in names if name in own), shared, numbers, checks, redrawn)


def _join(target: Path, parts: Path, paths: list[Path], first: Problem, recipe: dict[str, Any], count: int) -> None:
    """Write the blocks, in their order, to one file."""
    import numpy as np

    from sciml.files.formats import own

    size = int(recipe["block"])
    layout = _survey(paths, size, {*first.fields, first.unknown})
    space = tuple("xyz"[: first.space.dim])
    times = getattr(first, "times", None)
    sample, _ = load_tensors(paths[0])

    def variable(name: str) -> own.Variable:
        tensor = sample[name]
        axes: list[str] = ["sample"] if name in layout.members else []
        shape: list[int] = [count] if name in layout.members else []
        if tensor.ndim > 1:
            timed = times is not None and name == first.unknown
            for axis, length in zip((*(("time",) if timed else ()), "channel", *space), tensor.shape[1:], strict=True):
                if axis != "channel" or length != 1:
                    axes.append(axis)
                    shape.append(int(length))
        kind = "uint8" if tensor.dtype == torch.bool else str(tensor.dtype).removeprefix("torch.")
        return own.Variable(tuple(axes), tuple(shape), kind, "1")

    variables = {name: variable(name) for name in (*layout.members, *layout.shared)}

    def blocks() -> Iterator[dict[str, Any]]:
        for index, path in enumerate(paths):
            tensors, _ = load_tensors(path)
            rows = min(size, count - index * size)
            block = {}
            for name, made in variables.items():
                tensor = tensors[name]
                if name in layout.members:
                    tensor = tensor.expand(size, *tensor.shape[1:])[:rows]
                    block[name] = tensor.reshape(rows, *made.shape[1:]).numpy()
                else:
                    block[name] = tensor.reshape(made.shape).numpy()
            yield block

    coordinates: dict[str, Any] = {}
    attrs: dict[str, Any] = {"recipe": json.dumps(recipe, sort_keys=True), "problem": first.name, **layout.numbers}
    if first.space.domain is not None:
        points = first.space.domain.coordinates()
        coordinates = {axis: values.numpy() for axis, values in zip(space, points, strict=True)}
        attrs["grid"] = json.dumps(first.space.domain.to_dict())
    if times is not None:
        coordinates["time"] = np.asarray(times, dtype=np.float64)
    attrs["certificate"] = json.dumps(
        {name: {"worst": worst, "target": goal} for name, (worst, goal) in layout.checks.items()}, sort_keys=True
    )
    attrs["redrawn"] = layout.redrawn
    attrs["unknown"] = first.unknown
    own.write(str(target), variables, coordinates, attrs, blocks(), folder=str(parts))
    members = recipe["count"]
    if layout.redrawn > 0.02 * members:
        warnings.warn(
            f"{layout.redrawn} members were drawn again because the solver did not certify them, for {members} that it did: "
            f"the sample in '{target}' leans towards easy members; use a tighter solver",
            stacklevel=3,
        )


def _wait(ready: Callable[[], bool]) -> None:
    """Wait for other processes; if one of them fails, torchrun ends this one."""
    pause = 0.01
    while not ready():
        time.sleep(pause)
        pause = min(1.0, 1.5 * pause)


@contextlib.contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; gives `advance(blocks done)`."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("generating", total=total)
        yield lambda done: progress.update(task, completed=done)
