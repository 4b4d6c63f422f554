from __future__ import annotations

import re
from urllib.parse import unquote

#: The path of Google's token endpoint.
GOOGLE_TOKEN = "/token"  # noqa: S105 - a path
_GOOGLE = re.compile(r"/v1/projects/[^/]+/locations/[^/]+/workspaces/[^/]+/invoke(?=/v1/)")


def split_platform(path: str) -> tuple[str, str]:
    """Return what stands before the path of an endpoint on Google Cloud (empty elsewhere), and that path."""
    found = _GOOGLE.match(path)
    return (found[0], path[found.end() :]) if found else ("", path)


def methods_of(path: str) -> dict[str, str]:
    """Return the endpoints of a path, by method."""
    match path.split("/"):
        case ["", "v1", "messages", "batches"]:
            return {"POST": "create", "GET": "list"}
        case ["", "v1", "messages", "batches", _]:
            return {"GET": "retrieve", "DELETE": "delete"}
        case ["", "v1", "messages", "batches", _, "cancel"]:
            return {"POST": "cancel"}
        case ["", "v1", "messages", "batches", _, "results"]:
            return {"GET": "results"}
        case ["", "v1", "models"]:
            return {"GET": "models"}
        case ["", "v1", "models", _]:
            return {"GET": "model"}
        case ["", "v1", "messages", "count_tokens"]:
            return {"POST": "count_tokens"}
        case ["", "v1", "oauth", "token"] | ["", "token"]:
            return {"POST": "exchange"}
    return {}


def route(method: str, path: str) -> tuple[str, str | None]:
    """Return the endpoint and the batch ID. The path is split before it is decoded: an ID may have an escaped slash."""
    parts = path.split("/")
    place = 3 if parts[2:3] == ["models"] else 4
    id_ = unquote(parts[place]) if len(parts) > place and methods_of(path) else None
    return methods_of(path).get(method, "unknown"), id_
