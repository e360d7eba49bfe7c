"""Loops over arrays, compiled to machine code when they are first called.

numpy makes a pass over memory, and a call of microseconds, for each operation.  A small round of
events was little but such calls (docs/decisions/0061-compiled-loops.md).  A loop that numba
compiles does the same in one pass and lets go of the interpreter lock meanwhile.

Each loop is compiled once for one signature, so that nothing is compiled in the middle of service:
`prepare` does it before a worker is ready.  The machine code is kept beside the source, else in the
user's cache or where `NUMBA_CACHE_DIR` says; where none of these can be written, every start
compiles anew (some seconds).  With `NUMBA_DISABLE_JIT=1` the loops run as the Python that they are.

There are no bounds checks in such a loop: indices are made by it, or checked by its caller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_LOOPS: list[Callable[[], Any]] = []
_PARTS: list[Callable[..., Any]] = []


def called_by_loops(part: Callable[P, R]) -> Callable[P, R]:
    """Let loops of the same module call a function: of the same, since what was compiled is kept
    until the loop's own file changes.  It is compiled with them, by the types that they pass, and
    is ordinary Python otherwise."""
    _PARTS.append(part)
    return part


@functools.cache
def _known_to_numba(part: Callable[..., Any]) -> None:
    import numba.extending

    numba.extending.register_jitable(part)


def compiled(
    signature: str, *, writes: str, any_order: bool = False
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Compile a function that returns nothing and writes into arrays.

    Args:
        signature: the types of its arguments as numba writes them; `f4[:, ::1]` is a contiguous
            matrix of float32, `u1[:, :]` one of bytes that need not be.
        writes: names of the arguments that it writes, with spaces between; all others may be
            read-only arrays.
        any_order: sums may be added up in any order, which lets the processor do several at once;
            as numpy does in its own.
    """

    def wrap(loop: Callable[P, None]) -> Callable[P, None]:
        @functools.cache
        def machine_code() -> Any:  # a dispatcher of numba, which has no types
            # Half a second: not for commands that compute nothing.
            import numba

            for part in _PARTS:
                _known_to_numba(part)
            sigutils: Any = numba.core.sigutils
            types, _ = sigutils.normalize_signature(f"void({signature})")
            names = loop.__code__.co_varnames
            frozen = [
                kind
                if name in writes.split() or not isinstance(kind, numba.types.Array)
                else kind.copy(readonly=True)
                for name, kind in zip(names, types, strict=False)
            ]
            fast = {"reassoc", "contract", "nsz"} if any_order else False
            build = functools.partial(
                numba.njit, numba.void(*frozen), nogil=True, fastmath=fast, error_model="numpy"
            )
            try:
                return build(cache=True)(loop)
            except RuntimeError:  # there is nowhere to keep it
                return build()(loop)

        _LOOPS.append(machine_code)

        @functools.wraps(loop)
        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            machine_code()(*args, **kwargs)

        return call

    return wrap


def prepare() -> None:
    """Compile every loop of the modules imported so far, or load what was compiled before."""
    for machine_code in _LOOPS:
        machine_code()
