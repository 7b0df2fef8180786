"""Processes that run cases which are told their place, and that begin anew where some are left waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.distributed.processes import CaseError, Processes


class Pool(Processes):
    """``run(2, case, *args)`` gives what ``case(rank, 2, group, *args)`` gives on each of two processes."""

    def together(self, case: Callable[..., Any], *args: Any, world: int) -> list[Any]:
        """What ``case(group, *args)`` gives on each process: nobody is left waiting, whatever it raises."""
        return super().run(case, *args, world=world)

    def run(self, world: int, case: Callable[..., Any], *args: Any) -> list[Any]:  # type: ignore[override]
        """Raises ``CaseError`` with the errors of all processes that had one."""
        try:
            return super().run(_placed, case, args, world=world)
        except CaseError as error:
            # Where some wait for others, their group is of no use any more.
            if None in error.errors or len(set(error.errors)) > 1:
                self.restart()
            raise


def _placed(group: Any, case: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return case(group.rank(), group.size(), group, *args)
