"""`python -m tracewire ARGS` starts the program with these arguments, on POSIX in place of this process."""

from __future__ import annotations

import os
import subprocess
import sys

from tracewire._binary import find_binary
from tracewire._errors import TracewireError


def main() -> int:
    """Run the program; its exit code is ours."""
    try:
        binary = find_binary()
    except TracewireError as error:
        sys.stderr.write(f"tracewire: {error}\n")
        return 2
    arguments = [binary, *sys.argv[1:]]
    if os.name == "posix":
        os.execv(binary, arguments)  # noqa: S606
    return subprocess.run(arguments, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
