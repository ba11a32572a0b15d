"""Leads aiohttp through the proxy that the environment names, which it does by itself only if told to (trust_env).

`tracewire run` puts this file's folder on PYTHONPATH, so every Python of a traced command starts with it. It must change
nothing else: no output, no folder left on sys.path, the user's own sitecustomize run as ever, other proxies, connectors
and NO_PROXY respected, ~/.netrc not read (trust_env would). A fault in here must leave the program as it was.
"""

import os
import sys

_MODULE = "aiohttp.client"


class _Finder:
    """Waits for one module to be looked up, and has it mended once it is loaded."""

    tracewire_hook = True

    def find_spec(self, name, path=None, target=None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        try:
            loader, load = spec.loader, spec.loader.exec_module

            def exec_module(module):
                del loader.exec_module
                load(module)
                try:
                    _lead(module.ClientSession)
                except Exception:
                    pass

            loader.exec_module = exec_module
        except Exception:
            pass
        return spec


def _lead(session_type):
    from functools import wraps

    from aiohttp.connector import TCPConnector
    from aiohttp.helpers import get_env_proxy_for_url

    request = session_type._request
    dialling = ("_create_connection", "_create_direct_connection", "_create_proxy_connection", "_wrap_create_connection")

    def proxy_for(session, url):
        """The proxy that trust_env would find; nothing where the program has chosen a route of its own."""
        connector = session._connector
        own = any(getattr(type(connector), name, None) is not getattr(TCPConnector, name, None) for name in dialling)
        if own or session._trust_env or getattr(session, "_default_proxy", None) is not None:
            return {}
        try:
            proxy, credentials = get_env_proxy_for_url(session._build_url(url))
        except LookupError:
            return {}
        return {"proxy": proxy, "proxy_auth": credentials}

    @wraps(request)
    def led(self, method, str_or_url, **options):
        if options.get("proxy") is None:
            try:
                options.update(proxy_for(self, str_or_url))
            except Exception:
                pass
        return request(self, method, str_or_url, **options)

    session_type._request = led


def _run_users_own():
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != folder]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
    finally:
        # The import under way ends by looking for its module.
        sys.modules.setdefault("sitecustomize", ours)


# One run inside another, or in a shell with our variables, brings a second copy of this file.
if sys.version_info >= (3, 4) and not any(getattr(finder, "tracewire_hook", False) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
_run_users_own()
