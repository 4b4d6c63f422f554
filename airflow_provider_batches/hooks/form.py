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
    "platform": (
        "Platform",
        {**_TEXT, "enum": ["anthropic", "aws", "google"]},
        "Who serves the API: anthropic (default), aws (Claude Platform on AWS) or google (Claude on Google Cloud).",
    ),
    "federation_rule_id": (
        "Federation rule ID",
        _TEXT,
        "For workload identity, instead of a key: the rule that accepts the identity.",
    ),
    "organization_id": ("Organization ID", _TEXT, "For workload identity: the UUID of the organization."),
    # Airflow hides it in any case, because of its name.
    "service_account_id": (
        "Service account ID",
        _SECRET,
        "For workload identity: the service account to act as. Default: the rule's.",
    ),
    "identity_file": ("Identity token file", _TEXT, "For workload identity: the path of the file with the JWT."),
    "identity_variable": (
        "Identity token variable",
        _TEXT,
        "Or the environment variable with the JWT.",
    ),
    "identity_conn_id": (
        "Identity token connection",
        _TEXT,
        "Or the ID of a Google Cloud or Azure connection that provides the JWT.",
    ),
    "identity_audience": (
        "Identity token audience",
        _TEXT,
        "The audience of a JWT from a connection. Default: https://api.anthropic.com.",
    ),
    "identity_callable": (
        "Identity token callable",
        _TEXT,
        "Or the import path of a function that returns the JWT.",
    ),
    "aws_region": ("AWS region", _TEXT, "For platform aws. Default: the environment's."),
    "aws_conn_id": ("AWS connection", _TEXT, "For platform aws: an Airflow connection. Default: botocore's own chain."),
    "gcp_project": ("Google Cloud project", _TEXT, "For platform google. Default: the environment's."),
    "gcp_location": ("Google Cloud location", _TEXT, "For platform google. Default: global."),
    "gcp_conn_id": (
        "Google Cloud connection",
        _TEXT,
        "For platform google: an Airflow connection. Default: the application default credentials.",
    ),
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
        "The workspace, if the credentials are valid for several. Required for aws and google.",
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
