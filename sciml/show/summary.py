"""Solutions in words and as plain data, for titles, tables and machines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sciml.core.solution import Code

if TYPE_CHECKING:
    from sciml.core.solution import Check, Solution

__all__ = ["certificate", "plain", "solution_facts", "verdict"]


def certificate(solution: Solution, member: int | None = None) -> str:
    """Code, checks, solver and cost in one line: of one member, or the worst of all."""
    code = solution.code if member is None else Code(int(solution.codes[member]))
    solver = type(solution.solver).__name__
    parts = [code.name, *(check_text(check, member) for check in solution.checks), solver]
    steps = int(solution.stats.get("steps", 0))
    if steps:
        parts.append("1 step" if steps == 1 else f"{steps} steps")
    parts.append(f"{solution.stats.get('seconds', 0.0):.2f} s")
    return "   ".join(parts)


def check_text(check: Check, member: int | None = None) -> str:
    """Name, value (of one member, or the largest) and target."""
    values = check.value.detach()
    value = float(values.max()) if member is None else float(values[member % len(values)])
    if check.target is None:
        return f"{check.name} {value:.3g}"
    return f"{check.name} {value:.1e} (target {check.target:.0e})"


def verdict(solution: Solution) -> dict[str, int]:
    """How many members ended with each code."""
    codes = solution.codes.tolist()
    return {code.name: codes.count(code) for code in Code if code in codes}


def solution_facts(solution: Solution) -> dict[str, Any]:
    """A solution as plain data: code, members, checks with targets, cost, recipe; numbers that are not finite are null."""
    import json

    recipe = solution.recipe
    facts = {
        "problem": solution.problem.name,
        "code": solution.code.name,
        "sentence": solution.code.sentence,
        "certified": solution.ok,
        "codes": [Code(code).name for code in solution.codes.tolist()],
        "checks": [
            {
                "name": check.name,
                "value": check.value.detach().tolist(),
                "target": check.target,
                "passed": check.passed.tolist(),
            }
            for check in solution.checks
        ],
        "solver": type(solution.solver).__name__,
        "stats": dict(solution.stats),
        "shape": list(solution.value.shape),
        "dtype": str(solution.value.dtype).removeprefix("torch."),
        "recipe": None if recipe is None else json.loads(recipe.to_json()),
    }
    return dict(plain(facts))


def plain(value: Any) -> Any:
    """The value as JSON can hold it: mappings, lists, text and finite numbers."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)
