"""Finds the program `tracewire`.

The wheel carries it; a program from elsewhere can be named by TRACEWIRE_BINARY. Nothing is downloaded or built here.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from tracewire._errors import TracewireError

_NAME = "tracewire.exe" if os.name == "nt" else "tracewire"


def find_binary() -> str:
    """Return the path of the program: TRACEWIRE_BINARY, else beside the interpreter's scripts, else on PATH."""
    named = os.environ.get("TRACEWIRE_BINARY")
    if named:
        if _is_program(Path(named)):
            return named
        raise TracewireError(f"TRACEWIRE_BINARY names {named}, which is not a program: correct it, or unset it")
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        candidate = Path(folder) / _NAME
        if _is_program(candidate):
            return str(candidate)
    found = shutil.which(_NAME)
    if found:
        return found
    raise TracewireError(
        "the program tracewire was not found beside Python or on PATH: "
        "install the wheel (pip install tracewire), or set TRACEWIRE_BINARY to its path"
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
