"""Reads the requests of a submission from a list, a callable or files, and checks each."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_batches._arguments import read_literal
from airflow_provider_batches.api.bodies import encode_json
from airflow_provider_batches.api.errors import InvalidArgumentError, shown
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri
from airflow_provider_batches.submission.located import Located, Problem
from airflow_provider_batches.submission.rows import Rows
from airflow_provider_batches.submission.tags import MAX_CUSTOM_ID

_CUSTOM_ID = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_CUSTOM_ID}}}\Z")
_KEYS = {"custom_id", "params"}
_REFUSED = {
    "stream": "a batch cannot stream; remove it",
    "betas": "a batch has beta flags as a whole; set `anthropic_beta` of the connection instead",
}


def read_requests(source: object, context: Mapping[str, Any]) -> Iterator[Located]:
    """Iterate over the requests of a source, and where each stands.

    :param source: A list or an iterable of requests, Rows, a callable that returns one of these, or the URI of a JSONL
        file or of a folder of them.
    :param context: The task's context, which is passed to a callable that takes an argument.
    :raises InvalidArgumentError: The source is of another kind.
    """
    if callable(source):
        source = _call(source, context)
    if isinstance(source, Rows):
        yield from source.requests()
        return
    if isinstance(source, str) and source.lstrip().startswith("["):
        source = read_literal(source)
    if isinstance(source, str) or hasattr(source, "__fspath__") or hasattr(source, "protocol"):
        yield from _read_files(check_uri("requests", source))
        return
    if isinstance(source, (bytes, Mapping)) or not isinstance(source, Iterable):
        raise InvalidArgumentError(
            "requests",
            f"expected a list of {{'custom_id', 'params'}}, a callable, or the URI of a JSONL file or a folder of "
            f"them, got {shown(source)}.",
        )
    for index, request in enumerate(source):
        yield f"requests[{index}]", request


def encode(request: object) -> tuple[str, bytes, dict[str, Any]]:
    """Return the `custom_id` of a request, its `params` as compact JSON, and as an object.

    :raises Problem: The request is not valid.
    """
    if isinstance(request, Problem):
        raise request
    if isinstance(request, bytes):
        request = _parse(request)
    if not isinstance(request, Mapping):
        raise Problem(f"is not an object, but {type(request).__name__}")
    if request.keys() != _KEYS:
        if unknown := sorted(map(str, request.keys() - _KEYS)):
            raise Problem(f"has unknown keys: {', '.join(unknown)}. Supported: custom_id, params")
        raise Problem(f"lacks {', '.join(sorted(_KEYS - request.keys()))}")
    custom_id, params = request["custom_id"], request["params"]
    if not isinstance(custom_id, str) or not _CUSTOM_ID.match(custom_id):
        raise Problem(f"custom_id: got {shown(custom_id)}; it must be 1 to {MAX_CUSTOM_ID} of a-z A-Z 0-9 _ -")
    if not isinstance(params, dict):
        raise Problem(f"params: got {type(params).__name__}; it must be an object")
    _check_params(params)
    try:
        return custom_id, encode_json(params).encode(), params
    except (TypeError, ValueError, RecursionError) as error:
        raise Problem(f"params: cannot be encoded as JSON: {error}") from None


def _check_params(params: dict[str, Any]) -> None:
    model, max_tokens, messages = params.get("model"), params.get("max_tokens"), params.get("messages")
    if not isinstance(model, str) or not model:
        raise Problem(f"params.model: got {shown(model)}; it must be the name of a model")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise Problem(f"params.max_tokens: got {shown(max_tokens)}; it must be a whole number above 0")
    if not isinstance(messages, list) or not messages:
        raise Problem("params.messages: it must be a list of at least one message")
    for name, remedy in _REFUSED.items():
        if name in params:
            raise Problem(f"params.{name}: {remedy}")


def _call(function: Callable[..., Any], context: Mapping[str, Any]) -> object:
    try:
        takes_context = bool(inspect.signature(function).parameters)
    except ValueError:  # of a built-in
        takes_context = False
    return function(context) if takes_context else function()


def _read_files(uri: str) -> Iterator[Located]:
    parent, slash, name = uri.rstrip("/").rpartition("/")
    is_file = name.endswith(".jsonl")
    folder = Folder(parent + slash if is_file else uri, "requests")
    names = [name] if is_file else [each for each in folder.names() if each.endswith(".jsonl")]
    if not names:
        raise InvalidArgumentError("requests", f"{uri} is not a .jsonl file, and has none. Pass one, or their folder.")
    for each in names:
        try:
            for number, line in enumerate(_lines(folder.pieces(each)), 1):
                if line.strip():
                    yield f"{each}:{number}", line
        except FileNotFoundError:
            raise InvalidArgumentError("requests", f"{folder.uri(each)} does not exist.") from None


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        yield from lines
    yield rest


def _parse(line: bytes) -> object:
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        # Not the error's text, which may quote the line.
        raise Problem(f"is not valid JSON ({type(error).__name__})") from None
