"""Where the ledger and the caches are when the user does not say."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

LEDGER_VARIABLE = "TUTELAGE_LEDGER"
CACHE_VARIABLE = "TUTELAGE_CACHE"


def ledger_path(chosen: Path | None = None) -> Path:
    """The ledger's file: `chosen` (the option `--ledger`), else `$TUTELAGE_LEDGER`, else the platform's data folder."""
    if chosen is not None:
        return chosen.expanduser()
    named = os.environ.get(LEDGER_VARIABLE)
    return Path(named).expanduser() if named else user_data_path("tutelage", appauthor=False) / "ledger.sqlite3"


def cache_folder() -> Path:
    """The folder of every cache: `$TUTELAGE_CACHE`, else the platform's cache folder. It may not exist yet."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else user_cache_path("tutelage", appauthor=False)
