"""The command line as a whole. It finds things by name and calls the same functions as Python users do.

Exit status: 0 certified (or done, where nothing is judged), 3 no certificate, 2 bad input, 1 a fault of this program.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from sciml.cli import commands, learning, reconstruction
from sciml.cli.bench import bench
from sciml.cli.terminal import BAD_INPUT, CERTIFIED, FAULT, UNCERTIFIED, say, warn
from sciml.domains.errors import InputError

__all__ = ["app", "main"]


def version() -> str:
    """The version of the package."""
    import sciml

    return sciml.__version__


app = App(
    name="sciml",
    help="Solve partial differential equations and inverse problems with classical and learned solvers; every answer is checked.",
    version=version,
    help_format="plaintext",
    result_action="return_value",
)
COMMANDS: tuple[Callable[..., int], ...] = (
    commands.problems, commands.solve, commands.certify, commands.data, commands.generate,
    reconstruction.reconstruct, learning.train, learning.predict, learning.report, bench,
)  # fmt: skip
for command in COMMANDS:
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    from sciml.core.solution import SolveError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = warn
            given = sys.argv[1:] if arguments is None else list(arguments)
            code = app(given, exit_on_error=False, print_error=False)
        return code if isinstance(code, int) else CERTIFIED
    except (CycloptsError, InputError) as error:
        say(str(error))
        return BAD_INPUT
    except SolveError as error:
        say(str(error))
        return UNCERTIFIED
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, which is its own affair
        sys.stderr.close()
        return CERTIFIED
    except Exception:
        import traceback

        traceback.print_exc()
        return FAULT
