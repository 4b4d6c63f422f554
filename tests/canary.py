"""Secrets that no text may hold, and the search for them."""

from __future__ import annotations

import base64
import json

#: Long, so that a part of one would be found too.
KEY = "sk-ant-canary-" + "".join(f"{number:02d}q" for number in range(30))
TOKEN = "gateway-canary-" + "".join(f"{number:02d}t" for number in range(30))
#: What a proxy answers that shows the request to its reader. A client can hide only what it has sent itself.
ECHO = json.dumps({"type": "error", "error": {"type": "x", "message": f"x-api-key: {KEY} x-gateway-token: {TOKEN}"}})

_PART = 24


def _forms() -> list[bytes]:
    forms = []
    for secret in (KEY.encode(), TOKEN.encode()):
        for start in range(0, len(secret) - _PART, 16):
            part = secret[start : start + _PART]
            # As base64 has it, however many bytes come before, and as a dump of a database writes bytes.
            forms += [part, part.hex().encode(), part.hex().upper().encode()]
            forms += [base64.b64encode(secret[start + shift : start + shift + _PART]) for shift in range(3)]
    return forms


_FORMS = _forms()


def found_in(text: str | bytes) -> list[str]:
    """Return some of the places where a text holds parts of the secrets: plain, in base64 or in hex."""
    data = text.encode() if isinstance(text, str) else text
    places = [at for form in _FORMS if (at := data.find(form)) >= 0]
    return [data[max(0, at - 80) : at + 80].decode(errors="replace") for at in places[:5]]
