"""A request or row, where it stands, and what is wrong with it."""

from __future__ import annotations

#: Where a request stands, and the request: an object, a line of bytes in a file, or a Problem.
Located = tuple[str, object]


class Problem(Exception):
    """A request is not valid."""
