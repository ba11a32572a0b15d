"""The one error of the package."""

from __future__ import annotations


class TracewireError(RuntimeError):
    """Says what failed, why, and what to do."""
