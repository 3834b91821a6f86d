"""One command in several processes (`torchrun`, `accelerate launch`): which of them speaks, and how it is given again.

Read from what launchers put into the environment, so that torch is not loaded for it.
"""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among those that train together; 0 is the main one, and the only one of most commands."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launcher() -> list[str]:
    """The words that start as many processes on each machine again; none for a single process."""
    if processes() == 1:
        return []
    return ["torchrun", "--nproc_per_node", os.environ.get("LOCAL_WORLD_SIZE", str(processes())), "-m"]
