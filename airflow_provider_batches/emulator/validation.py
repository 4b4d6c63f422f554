from __future__ import annotations

import json
import re
from typing import Any

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Fields that `params` in a batch may not have, by API version.
REMOVED = {"2026-10-21": frozenset({"speed", "temperature", "top_p", "top_k"})}
NEVER = frozenset({"speed"})


class Refusal(Exception):
    """Makes the emulator answer with the API's error envelope."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def read_json(body: bytes | bytearray) -> dict[str, Any]:
    """Return the object of a request's body.

    :raises Refusal: If it is not strict JSON, or not an object.
    """
    try:
        payload = json.loads(body, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    if not isinstance(payload, dict):
        raise Refusal(400, "The request body must be an object.")
    return payload


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON.")


def check_requests(
    body: bytes | bytearray, max_requests: int, version: str
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Check the body of a create, as the API does immediately, and each request's `params`, as it does later.

    :return: The requests, and the errors in the `params` of some, by index.
    :raises Refusal: If the body is not valid; the message has the place and the reason.
    """
    payload = read_json(body)
    for name in payload.keys() - {"requests"}:
        raise Refusal(400, f"{name}: Extra inputs are not permitted")
    requests = payload.get("requests")
    if not isinstance(requests, list) or not requests:
        raise Refusal(400, "requests: must be a list of at least one request")
    if len(requests) > max_requests:
        raise Refusal(400, f"requests: at most {max_requests} are allowed")
    problems: dict[int, str] = {}
    seen = set()
    for i, request in enumerate(requests):
        if not isinstance(request, dict) or request.keys() != {"custom_id", "params"}:
            raise Refusal(400, f"requests.{i}: must be an object with custom_id and params")
        custom_id, params = request["custom_id"], request["params"]
        if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
            raise Refusal(400, f"requests.{i}.custom_id: must match ^[a-zA-Z0-9_-]{{1,64}}$")
        if custom_id in seen:
            raise Refusal(400, f"requests.{i}.custom_id: {custom_id} is not unique in this batch")
        seen.add(custom_id)
        if not isinstance(params, dict):
            raise Refusal(400, f"requests.{i}.params: must be an object")
        if problem := problem_of(params, version):
            problems[i] = problem
    return requests, problems


def problem_of(params: dict[str, Any], version: str) -> str | None:
    """Return the error in the `params` of a request, or None."""
    if not isinstance(params.get("model"), str) or not params["model"]:
        return "model: Field required"
    if type(params.get("max_tokens")) is not int or params["max_tokens"] < 1:
        return "max_tokens: must be an integer of at least 1"
    if not isinstance(params.get("messages"), list) or not params["messages"]:
        return "messages: at least one message is required"
    if params.get("stream"):
        return "stream: is not supported in a batch"
    removed = REMOVED.get(version, NEVER)
    if not removed.isdisjoint(params):
        return f"{min(removed & params.keys())}: Extra inputs are not permitted"
    return None
