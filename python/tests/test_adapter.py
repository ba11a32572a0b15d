"""OneSpanPerCall on spans that are made here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

agl = pytest.importorskip("agentlightning", "0.3")
if agl.__version__.startswith("0.2."):
    pytest.skip("the spans are those of 0.3", allow_module_level=True)

from tracewire.agentlightning._adapter import one_span_per_call


def span(name: str, parent: str | None = None, response: str | None = None, *, of_proxy: bool = False):
    attributes = {"gen_ai.response.id": response} if response else {}
    attributes.update({"http.request.method": "POST"} if of_proxy else {})
    one = SimpleNamespace(span_id=name, parent_id=parent, attributes=attributes)
    one.model_copy = lambda update: SimpleNamespace(**{**vars(one), **update})
    return one


def tree(spans) -> list[tuple[str, str | None]]:
    return [(one.span_id, one.parent_id) for one in one_span_per_call(spans)]


def test_the_span_of_the_proxy_stays_and_children_move_up() -> None:
    spans = [span("root"), span("a", "root", "id"), span("b", "a", "id"), span("call", "b", "id", of_proxy=True)]
    assert tree(spans) == [("root", None), ("call", "root")]


def test_without_the_proxy_the_first_stays() -> None:
    assert tree([span("a", None, "id"), span("b", "a", "id"), span("c", "b")]) == [("a", None), ("c", "a")]


def test_calls_with_one_response_id_all_stay() -> None:
    calls = [span(f"call-{n}", "a", "same", of_proxy=True) for n in range(3)]
    assert tree([span("a", "root", "same"), *calls]) == [(f"call-{n}", "root") for n in range(3)]


def test_parents_in_a_circle_end() -> None:
    spans = [span("call", "a", "id", of_proxy=True), span("a", "b", "id"), span("b", "a", "id")]
    assert [name for name, _ in tree(spans)] == ["call"]
