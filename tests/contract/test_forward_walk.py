"""The contract of forward models, asked of every example(), and of twins that break it."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
import walk
from torch import Tensor

from sciml import checks
from sciml.core import ForwardModel, LinearOperator
from sciml.core.tree import rebuild
from sciml.domains.space import Space

# Files of windows and other parts have examples of their own kind.
FILES = [file for file in walk.files("forward") if isinstance(file.example(), ForwardModel)]
TINY = 400  # entries of a Jacobian that is checked by differences


def drawn(space: Space, batch: int, seed: int = 0) -> Tensor:
    """Random fields, small enough for the exponential of one to be harmless."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn((batch, *space.shape), generator=generator, dtype=space.dtype)


def members(forward: ForwardModel) -> int:
    """How many members the forward model itself holds."""
    return forward.batch if isinstance(forward, LinearOperator) else 1


def shapes(forward: Any) -> list[str]:
    """The result has the codomain's shape and dtype, for a single member and for several, with samples in front."""
    faults = []
    batch = max(2, members(forward))
    for lead in ((batch,), (3, batch)):
        x = drawn(forward.space, math.prod(lead)).reshape(*lead, *forward.space.shape)
        image = forward(x)
        if image.shape != (*lead, *forward.codomain.shape) or image.dtype != forward.codomain.dtype:
            faults.append(f"makes {tuple(image.shape)} {image.dtype}, its codomain is {forward.codomain.shape}")
        elif len(lead) == 2 and not _close(image[1], forward(x[1]), 1e-11):
            faults.append("samples in front are not each treated alike")
    return faults


def transposes(forward: Any) -> list[str]:
    """The adjoint of the linearisation is its plain conjugate transpose, to 1e-12."""
    tangent = forward.linearise(drawn(forward.space, members(forward)))
    found = checks.adjoint(tangent)
    return [] if found else [str(found)]


def differentiates(forward: Any) -> list[str]:
    """The linearisation is the derivative: Taylor's remainder falls with the square of the step."""
    if isinstance(forward, LinearOperator):
        x = drawn(forward.space, members(forward))
        return [] if forward.linearise(x) is forward else ["a linear operator's derivative is itself"]
    found = checks.derivative(forward, drawn(forward.space, 1))
    return [] if found else [str(found)]


def batches(forward: Any) -> list[str]:
    """A batch is the stack of its members."""
    if members(forward) > 1:
        return []
    x = drawn(forward.space, 3)
    together = forward(x)
    apart = torch.cat([forward(x[i : i + 1]) for i in range(3)])
    faults = [] if _close(together, apart, 1e-11) else ["a batch is not the stack of its members"]
    v = drawn(forward.codomain, 3, 1)
    back = forward.linearise(x).adjoint(v)
    each = torch.cat([forward.linearise(x[i : i + 1]).adjoint(v[i : i + 1]) for i in range(3)])
    return faults if _close(back, each, 1e-11) else [*faults, "the adjoint of a batch is not the stack"]


def repeats(forward: Any) -> list[str]:
    """Twice gives the same bits, forwards and back, whatever the global seed."""
    x, v = drawn(forward.space, members(forward)), drawn(forward.codomain, members(forward), 1)
    torch.manual_seed(1)
    one = forward(x), forward.linearise(x).adjoint(v)
    torch.manual_seed(2)
    two = forward(x), forward.linearise(x).adjoint(v)
    return [] if all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) else ["two runs differ"]


def single_precision(forward: Any) -> list[str]:
    """Cast to float32 it works in float32 and is right to 1e-3 of the largest number."""
    low = lowered(forward)
    x = drawn(forward.space, members(forward))
    image, wanted = low(x.to(low.space.dtype)), forward(x)
    faults = []
    if image.dtype not in (torch.float32, torch.complex64):
        faults.append(f"float32 in, {image.dtype} out")
    if not _close(image.to(wanted.dtype), wanted, 1e-3):
        faults.append("float32 gives other numbers")
    found = checks.adjoint(low.linearise(x.to(low.space.dtype)), tolerance=1e-4)
    return faults if found else [*faults, str(found)]


def autograd_agrees(forward: Any) -> list[str]:
    """Automatic differentiation gives the adjoint, and on tiny sizes passes gradcheck and gradgradcheck."""
    x = drawn(forward.space, members(forward)).requires_grad_()
    v = drawn(forward.codomain, members(forward), 1)
    (back,) = torch.autograd.grad(forward(x), x, v)
    with torch.no_grad():
        wanted = forward.linearise(x.detach()).adjoint(v)
    faults = [] if _close(back, wanted, 1e-8) else ["automatic differentiation does not give the adjoint"]
    if forward.space.size * forward.codomain.size <= TINY:
        settings: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-3, "raise_exception": False}
        if not torch.autograd.gradcheck(forward, (x,), **settings):
            faults.append("gradcheck fails")
        if not torch.autograd.gradgradcheck(forward, (x,), **settings):
            faults.append("gradgradcheck fails")
    return faults


def copies(forward: Any) -> list[str]:
    """Pickled and deep-copied it gives the same bits, also after use."""
    x = drawn(forward.space, members(forward))
    wanted = forward(x)
    faults = []
    for way, twin in (("pickled", pickle.loads(pickle.dumps(forward))), ("deep-copied", copy.deepcopy(forward))):
        if not torch.equal(twin(x), wanted):
            faults.append(f"{way}, it gives other numbers")
    return faults


def keeps_its_input(forward: Any) -> list[str]:
    """Neither the unknown nor the data are changed."""
    x, v = drawn(forward.space, members(forward)), drawn(forward.codomain, members(forward), 1)
    before = x.clone(), v.clone()
    with torch.no_grad():
        forward(x)
        forward.linearise(x).adjoint(v)
    return [] if torch.equal(x, before[0]) and torch.equal(v, before[1]) else ["changes its input"]


def lowered(forward: Any) -> Any:
    """The same in single precision, as ``Problem.to`` makes it."""
    half = {torch.float64: torch.float32, torch.complex128: torch.complex64}
    return rebuild(
        forward,
        lambda leaf: leaf.tensor.to(half.get(leaf.tensor.dtype, leaf.tensor.dtype)),
        lambda name, value: half.get(value, value),
    )


def _close(one: Tensor, other: Tensor, rounding: float) -> bool:
    gap = float((one - other).abs().max())
    return one.shape == other.shape and gap <= rounding * float(other.abs().max())


PROMISES: tuple[Callable[[Any], list[str]], ...] = (
    shapes,
    transposes,
    differentiates,
    batches,
    repeats,
    single_precision,
    autograd_agrees,
    copies,
    keeps_its_input,
)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("file", FILES, ids=walk.short)
def test_forward(file: ModuleType, promise: Callable[[Any], list[str]]) -> None:
    assert not promise(file.example())


@dataclass(frozen=True, eq=False)
class Slope(LinearOperator):
    """The derivative of the twin: ``v -> M (2 x v)``."""

    mix: Tensor
    at: Tensor
    flaw: str = ""

    @property
    def space(self) -> Space:
        return Space(None, (1, 3), dtype=self.mix.dtype)

    @property
    def codomain(self) -> Space:
        return Space(None, (1, 2), dtype=self.mix.dtype)

    def __call__(self, u: Tensor) -> Tensor:
        factor = 2.1 if self.flaw == "slope" else 2.0
        return (factor * self.at * u) @ self.mix.mT

    def adjoint(self, v: Tensor) -> Tensor:
        factor = 4.0 if self.flaw == "adjoint" else 2.1 if self.flaw == "slope" else 2.0
        back = factor * self.at * (v @ self.mix)
        return back.mean(0, keepdim=True).expand(back.shape) if self.flaw == "mixes back" else back


@dataclass(frozen=True, eq=False)
class Squares(ForwardModel):
    """The plainest nonlinear forward model, ``M x^2``; ``flaw`` breaks it."""

    mix: Tensor = dataclasses.field(metadata={"shared": True})
    flaw: str = ""

    @property
    def space(self) -> Space:
        return Space(None, (1, 3), dtype=self.mix.dtype)

    @property
    def codomain(self) -> Space:
        return Space(None, (1, 2), dtype=self.mix.dtype)

    def __call__(self, u: Tensor) -> Tensor:
        if self.flaw == "grabs" and not u.requires_grad:
            u.mul_(1.001)
        result = u.square() @ self.mix.mT
        if self.flaw == "seed":
            result = result + 1e-9 * torch.rand(())
        if self.flaw == "mixes":
            result = result + 1e-6 * result.mean(0, keepdim=True)
        if self.flaw == "detached":
            result = u.detach() * u @ self.mix.mT
        if self.flaw == "double":
            result = result.double()
        return result.flatten(1) if self.flaw == "flat" else result

    def linearise(self, x: Tensor) -> LinearOperator:
        return Slope(self.mix, x, self.flaw)

    def __reduce__(self) -> Any:
        return Squares, (2 * self.mix if self.flaw == "forgets" else self.mix, self.flaw)


def twin(flaw: str = "") -> Squares:
    matrix = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.3, 2.0]], dtype=torch.float64)
    return Squares(matrix, flaw)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
def test_an_honest_twin_passes(promise: Callable[[Any], list[str]]) -> None:
    assert not promise(twin())


@pytest.mark.parametrize(
    ("flaw", "promise"),
    [
        ("flat", shapes),
        ("adjoint", transposes),
        ("slope", differentiates),
        ("mixes", batches),
        ("mixes back", batches),
        ("seed", repeats),
        ("double", single_precision),
        ("detached", autograd_agrees),
        ("forgets", copies),
        ("grabs", keeps_its_input),
    ],
)
def test_a_broken_twin_is_caught(flaw: str, promise: Callable[[Any], list[str]]) -> None:
    assert promise(twin(flaw))
