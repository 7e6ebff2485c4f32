"""One solver, measured: seconds on the wall and of the processor, memory, calls, and a limit of time."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

from sciml.core.evolution import Evolution
from sciml.core.inverse import Inverse
from sciml.core.problem import Linear, Problem

__all__ = ["Calls", "Late", "Memory", "Stopwatch", "limited"]


class Late(BaseException):
    """The time is up. No Exception, so that a solver that catches those does not swallow it."""


@contextmanager
def limited(seconds: float) -> Iterator[Callable[[], None]]:
    """Raise Late after so many seconds: by a signal in the main thread, elsewhere at the next call of the function that is given.

    A signal is seen between two instructions of Python: one long call into a library is waited for.
    """
    end = time.perf_counter() + seconds

    def look() -> None:
        if time.perf_counter() > end:
            raise Late

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield look
        return

    done: list[bool] = []

    def ring(number: int, frame: FrameType | None) -> None:
        if not done:
            raise Late

    begun = time.perf_counter()
    before = signal.signal(signal.SIGALRM, ring)
    other, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        try:
            yield look
        finally:
            done.append(True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if other:  # somebody else's alarm is still to come
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, other - (time.perf_counter() - begun)))


class Stopwatch:
    """Seconds on the wall and of the processor (all threads) since it was made; on CUDA, work that was queued is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._wait()
        self.busy, self.wall = time.process_time(), time.perf_counter()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def read(self) -> tuple[float, float]:
        """(wall, processor)."""
        self._wait()
        return time.perf_counter() - self.wall, time.process_time() - self.busy


class Memory:
    """How much the resident set of this process grew at its highest since this was made; on CUDA, the bytes allocated.

    On Linux the kernel keeps the highest value and lets a process set it back; pages that were freed are handed back first.
    Elsewhere it is not known.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, 0
        gc.collect(1)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
            return
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _kilobytes("VmRSS")
        except OSError:
            self.before = -1

    def peak(self) -> int | None:
        """Bytes, or None where it is not known."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device)) - self.before
        if self.before < 0:
            return None
        return max(0, _kilobytes("VmHWM") - self.before) * 1024


def _kilobytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status does not tell {name}")


class Calls:
    """Counts calls of the problem's operator, law or forward model, and of networks, while it is on.

    Functions are recognised by their code, so that copies in other precisions count too; those of coarser grids do not, nor does
    work that a solver does without them (the stencils of multigrid). A network counts once for what it does inside.
    """

    def __init__(self, problem: Problem) -> None:
        self.shape = problem.space.shape
        self.names = _codes(problem)
        self.counts: dict[str, int] = {}
        self.inside, self.depth = 0, 0  # an adjoint may call the operator, a network has parts

    def _seen(self, frame: FrameType, event: str, argument: Any) -> None:
        name = self.names.get(frame.f_code) if event in ("call", "return") else None
        if name is None:
            return
        if event == "return":
            self.inside -= 1
            return
        self.inside += 1
        space = getattr(frame.f_locals.get("self"), "space", None)
        if self.inside == 1 and (name == "law" or getattr(space, "shape", None) == self.shape):
            self.counts[name] = self.counts.get(name, 0) + 1

    def _enter(self, module: Any, inputs: Any) -> None:
        if self.depth == 0:
            self.counts["network"] = self.counts.get("network", 0) + 1
        self.depth += 1

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        self.depth -= 1

    def __enter__(self) -> Calls:
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

        self.handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        self.before = sys.getprofile()
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self.before)
        for handle in self.handles:
            handle.remove()


def _codes(problem: Problem) -> dict[CodeType, str]:
    """What to count, by the code of the function."""
    found: list[tuple[Any, str]] = []
    if isinstance(problem, Linear):
        kind: Any = type(problem.operator)
        found = [(kind.__call__, "operator"), (kind.adjoint, "operator")]
    elif isinstance(problem, Inverse):
        kind = type(problem.forward)
        found = [(kind.__call__, "forward"), (getattr(kind, "adjoint", None), "adjoint")]
    elif isinstance(problem, Evolution):
        found = [(problem.rest.function, "law")]
        if problem.rest_modes is not None:
            found.append((problem.rest_modes.function, "law"))
    elif hasattr(problem, "law"):
        found = [(problem.law.function, "law")]
    bare = [(getattr(thing, "func", thing), name) for thing, name in found]  # of functools.partial
    return {thing.__code__: name for thing, name in bare if hasattr(thing, "__code__")}
