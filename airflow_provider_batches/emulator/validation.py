from __future__ import annotations

import json
import re

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Refusal(Exception):
    """An answer with the API's error envelope."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def check_requests(body: bytes | bytearray, max_requests: int) -> tuple[list[str], str]:
    """Check the body of a create as the API does; return the custom IDs and the first request's model.

    :raises Refusal: if it is not acceptable, with the place and the reason.
    """
    try:
        payload = json.loads(body)
    except ValueError:
        raise Refusal(400, "The request body is not valid JSON.") from None
    if not isinstance(payload, dict):
        raise Refusal(400, "The request body must be an object.")
    for name in payload.keys() - {"requests"}:
        raise Refusal(400, f"{name}: Extra inputs are not permitted")
    requests = payload.get("requests")
    if not isinstance(requests, list) or not requests:
        raise Refusal(400, "requests: must be a list of at least one request")
    if len(requests) > max_requests:
        raise Refusal(400, f"requests: at most {max_requests} are allowed")
    seen: dict[str, None] = {}
    for i, request in enumerate(requests):
        at = f"requests.{i}"
        if not isinstance(request, dict) or request.keys() != {"custom_id", "params"}:
            raise Refusal(400, f"{at}: must be an object with custom_id and params")
        custom_id, params = request["custom_id"], request["params"]
        if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
            raise Refusal(400, f"{at}.custom_id: must match ^[a-zA-Z0-9_-]{{1,64}}$")
        if custom_id in seen:
            raise Refusal(400, f"{at}.custom_id: {custom_id} is not unique in this batch")
        seen[custom_id] = None
        if not isinstance(params, dict):
            raise Refusal(400, f"{at}.params: must be an object")
        if not isinstance(params.get("model"), str) or not params["model"]:
            raise Refusal(400, f"{at}.params.model: Field required")
        if type(params.get("max_tokens")) is not int or params["max_tokens"] < 1:
            raise Refusal(400, f"{at}.params.max_tokens: must be an integer of at least 1")
        if not isinstance(params.get("messages"), list) or not params["messages"]:
            raise Refusal(400, f"{at}.params.messages: at least one message is required")
    return list(seen), requests[0]["params"]["model"]
