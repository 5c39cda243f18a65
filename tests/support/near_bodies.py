"""Bodies that are right, and those next to them that may be wrong: for what refuses them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

_LENGTHS = (0, 1, 12, 13, 19, 20, 50, 51, 100, 101, 255, 256, 1000, 1001, 1024, 1025, 2000, 2001)
_LONGER = (5000, 5001, 10_000, 10_001, 200_000, 200_001)
_OTHERS: tuple[Any, ...] = (None, 7, True, [], {}, "x" * 13, ["x"])
_PREFIXES = ("https://", "runway://", "data:image/", "data:audio/", "http://", "ftp://")


def near(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The body itself, without each key, with an unknown one, and with each value replaced."""
    yield body
    for path in _paths(body):
        without = copy.deepcopy(body)
        del _parent(without, path)[path[-1]]
        yield without
        for value in _values(_at(body, path)):
            changed = copy.deepcopy(body)
            _parent(changed, path)[path[-1]] = value
            yield changed
    for path in ((), *(p for p in _paths(body) if isinstance(_at(body, p), dict))):
        more = copy.deepcopy(body)
        _at(more, path)["unknown"] = 1
        yield more


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else ()
    for name, inner in entries:
        yield (*at, name)
        yield from _paths(inner, (*at, name))


def _at(body: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        body = body[name]
    return body


def _parent(body: Any, path: tuple[Any, ...]) -> Any:
    return _at(body, path[:-1])


def _values(value: Any) -> Iterator[Any]:
    yield from _OTHERS
    if isinstance(value, list) and value:
        yield from ([value[0]] * count for count in (1, 20, 21, 50, 51))
    if not isinstance(value, str):
        return
    address = next((prefix for prefix in _PREFIXES if value.startswith(prefix)), "")
    if not address:
        yield from ("x" * length for length in (*_LENGTHS, *_LONGER))
        return
    for prefix in _PREFIXES:
        lengths = (12, 13, 2048, 2049, 5000, 5001)
        yield from (prefix + "x" * (length - len(prefix)) for length in lengths)
    yield f"data:image/{'x' * 5_242_869}"
    yield f"data:image/{'x' * 5_242_870}"
