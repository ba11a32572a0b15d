"""Tracers for Agent Lightning, over Tracewire's proxy: `LitAgentRunner(tracer=TracewireTracer())`.

| tracer | Agent Lightning | records |
|---|---|---|
| TracewireTracer | 0.3 | HTTP calls, emitters, operations, OpenTelemetry spans |
| TracewireAgentOpsTracer | 0.3 | the same, and what AgentOps instruments |
| HttpTracer | 0.2 and 0.3 | HTTP calls |

`OneSpanPerCall` is for adapters, where AgentOps or another instrumentation records the same calls.
Agent Lightning must be installed. Calls of clients that were made before `init_worker` are not recorded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tracewire.agentlightning._http import HttpTracer

if TYPE_CHECKING:
    from tracewire.agentlightning._adapter import OneSpanPerCall
    from tracewire.agentlightning._tracer import TracewireAgentOpsTracer, TracewireTracer

__all__ = ["HttpTracer", "OneSpanPerCall", "TracewireAgentOpsTracer", "TracewireTracer"]


def __getattr__(name: str) -> Any:
    """Load the tracers for 0.3 when they are asked for: with 0.2 only HttpTracer can be."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module("tracewire.agentlightning." + ("_adapter" if name == "OneSpanPerCall" else "_tracer"))
    except ImportError as error:
        raise ImportError(
            f"{name} needs Agent Lightning 0.3 ({error}): pip install 'agentlightning>=0.3,<0.4'. "
            "HttpTracer works with 0.2"
        ) from error
    return getattr(module, name)
