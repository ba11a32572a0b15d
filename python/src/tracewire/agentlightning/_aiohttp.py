"""Leads aiohttp through the proxy of the environment, in this process.

aiohttp reads proxy variables only with `trust_env=True`, and makes its TLS context when it is imported. Sessions that
name a proxy of their own, and Agent Lightning's own store client, stay as they are. Child processes get the same from
the hook that `tracewire env` puts on PYTHONPATH.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

_MARK = "_tracewire_leads"
_OWN_CLIENT = "x-agentlightning-client"
_trusted: set[str] = set()


def lead_aiohttp() -> None:
    """Change aiohttp once for this process, if it is installed. Without our variables it does what it always did."""
    try:
        from aiohttp import ClientSession, connector  # noqa: PLC0415 - may not be installed
        from aiohttp.helpers import get_env_proxy_for_url  # noqa: PLC0415
    except ImportError:
        return
    _trust_authority(connector)
    original = ClientSession._request  # noqa: SLF001 - where every request of a session passes
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def request(self: Any, method: str, url: Any, **options: Any) -> Any:
        if "TRACEWIRE_ACTIVE" in os.environ and options.get("proxy") is None and _may_lead(self):
            with contextlib.suppress(LookupError):  # no proxy for this URL
                proxy, credentials = get_env_proxy_for_url(self._build_url(url))
                options.update(proxy=proxy, proxy_auth=credentials)
        return original(self, method, url, **options)

    setattr(request, _MARK, True)
    ClientSession._request = request  # noqa: SLF001


def _may_lead(session: Any) -> bool:
    has_own = getattr(session, "_trust_env", False) or getattr(session, "_default_proxy", None) is not None
    return not has_own and _OWN_CLIENT not in session.headers


def _trust_authority(connector: Any) -> None:
    context = getattr(connector, "_SSL_CONTEXT_VERIFIED", None)
    authorities = os.environ.get("SSL_CERT_FILE")
    if context is not None and authorities and authorities not in _trusted:
        with contextlib.suppress(OSError):
            context.load_verify_locations(authorities)  # takes 0.1 s
            _trusted.add(authorities)
