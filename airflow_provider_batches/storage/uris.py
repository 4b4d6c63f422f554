"""Checks the address of a folder or file."""

from __future__ import annotations

from airflow_provider_batches._arguments import is_template
from airflow_provider_batches.api.errors import InvalidArgumentError, shown


def check_uri(name: str, uri: object, *, rendered: bool = True) -> str:
    """Return the address of a folder or file.

    :param name: The argument, for the error.
    :param rendered: Whether Airflow has rendered the argument. If not, what a template hides is not checked.
    :raises InvalidArgumentError: It is not a URI or an absolute path, or does not lead where it seems to lead.
    """
    text = str(uri).strip()
    if _is_relative(text, rendered):
        rule = "be absolute, or it depends on where the worker was started: file:///data/results has three slashes"
    elif not rendered and (is_template(uri) or is_template(text)):
        return text
    elif text in ("", "None") or not ("://" in text or text.startswith("/")):
        rule = "be a URI like file:///data/results or s3://conn_id@bucket/results, or an absolute path"
    elif text.lower().startswith("memory:"):
        rule = "outlast this process, which memory:// does not"
    elif ".." in text.split("/") or not text.isprintable():
        # A Param that names a folder must not lead out of the folder above it.
        rule = "have no '..' between slashes, and no line breaks or other characters that cannot be printed"
    else:
        return text
    raise InvalidArgumentError(name, f"got {shown(uri)}; it must {rule}.")


def _is_relative(text: str, rendered: bool) -> bool:
    scheme, _, place = text.partition("://")
    conn, slash, path = place.partition("/")
    if scheme.lower() not in ("file", "local") or (not rendered and is_template(conn)):
        return False
    # ObjectStoragePath reads four slashes as a relative path, too.
    return bool(conn.rpartition("@")[2]) or not slash or path.startswith("/")
