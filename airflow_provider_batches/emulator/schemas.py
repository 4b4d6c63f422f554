"""Values that match a JSON schema, for structured output and tool calls."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from typing import Any

#: Below this depth, optional parts are omitted, so that a recursive schema ends.
DEEP = 5
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uuid": "01234567-89ab-4def-8123-456789abcdef",
}


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a value that matches a JSON schema, always the same for the same schema.

    `pattern`, `multipleOf` and conditions are ignored.

    :raises LookupError: If a `$ref` cannot be resolved.
    :raises RecursionError: If no finite value matches the schema.
    """
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        path = [part for part in schema["$ref"].removeprefix("#").split("/") if part]
        return sample(reduce(getitem, path, root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("allOf"):
        own = [{**schema, "allOf": None}] if "properties" in schema else []
        parts = [sample(each, root, depth + 1) for each in (*own, *schema["allOf"])]
        return dict(item for part in parts for item in part.items()) if isinstance(parts[0], dict) else parts[0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            # Most schemas of optional values have null last.
            return sample(schema[key][-1 if depth > DEEP else 0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _sample_of(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def _sample_of(kind: str, schema: dict[str, Any], root: Any, depth: int) -> Any:
    if kind == "object":
        names = schema.get("required", ()) if depth > DEEP else schema.get("properties", ())
        return {name: sample(schema.get("properties", {}).get(name), root, depth + 1) for name in names}
    if kind == "array":
        first = [sample(each, root, depth + 1) for each in schema.get("prefixItems", ())]
        count = max(schema.get("minItems", 0), int(depth <= DEEP and not first and "items" in schema)) - len(first)
        return first + [sample(schema.get("items"), root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        value = 1 if kind == "integer" else 1.5
        value = max(value, schema.get("minimum", value), schema.get("exclusiveMinimum", value - 1) + 1)
        return min(value, schema.get("maximum", value), schema.get("exclusiveMaximum", value + 1) - 1)
    if kind == "string":
        text = FORMATS.get(schema.get("format", ""), "text")
        return text.ljust(schema.get("minLength", 0), "t")[: schema.get("maxLength")]
    return {"boolean": True}.get(kind)
