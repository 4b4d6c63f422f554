"""The fields of the connection form.

Airflow 3.2 and newer reads them from the provider's metadata, older versions from the hook.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": ["string", "null"]}
# Airflow masks values by name in the edit form and in its REST API, and does not mask one named `headers`.
_SECRET = {**_TEXT, "format": "password"}
#: Key of the extra: label, JSON schema, description.
FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "auth_scheme": (
        "Auth scheme",
        {**_TEXT, "enum": ["x-api-key", "bearer"]},
        "How the key is sent: x-api-key (default), or bearer for gateways and OAuth tokens.",
    ),
    "anthropic_version": ("API version", _TEXT, "The anthropic-version header. Default: 2023-06-01."),
    "anthropic_beta": ("Beta flags", _TEXT, "The anthropic-beta header, comma-separated. Default: none."),
    "workspace_id": (
        "Workspace ID",
        _TEXT,
        "The anthropic-workspace-id header, for credentials that span workspaces.",
    ),
    "secret_headers": (
        "More headers",
        _SECRET,
        'A JSON object of strings, for example {"x-team": "search"}. Hidden, since headers may contain secrets.',
    ),
    "timeout": ("Timeout", {"type": ["number", "null"]}, "Seconds for each read or write. Default: 60."),
    "max_retries": (
        "Retries",
        {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
        "How often a failed call is retried. Default: 5.",
    ),
    "proxy": (
        "Proxy",
        _SECRET,
        "URL of a proxy. Hidden, since it may contain a password. Default: the environment's.",
    ),
    "verify": ("Verify certificates", _TEXT, "true (default), false, or the path of a CA file."),
    "allow_http": (
        "Allow http://",
        {"type": ["boolean", "null"]},
        "Whether the key may be sent unencrypted to a host other than this machine. Default: no.",
    ),
}
HIDDEN = ["login", "schema"]
RELABELING = {"password": "API key", "host": "Base URL"}
PLACEHOLDERS = {"host": "https://api.anthropic.com", "password": "sk-ant-...", "port": "443"}


def conn_fields() -> dict[str, Any]:
    """Return the form's additional fields for the provider's metadata."""
    return {
        name: {"label": label, "schema": schema, "description": description}
        for name, (label, schema, description) in FIELDS.items()
    }


def field_behaviour() -> dict[str, Any]:
    """Return the form's labels, placeholders and hidden fields."""
    return {"hidden_fields": HIDDEN, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}


def widgets() -> dict[str, Any]:
    """Return the form's additional fields as WTForms fields."""
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    kinds = {"boolean": BooleanField, "integer": IntegerField}
    made = {}
    for name, (label, schema, description) in FIELDS.items():
        kind = PasswordField if schema.get("format") == "password" else kinds.get(schema["type"][0], StringField)
        choices = [any_of(schema["enum"])] if "enum" in schema else []
        made[name] = kind(label, validators=[Optional(), *choices], description=description)
    return made
