"""The provider's metadata for Airflow."""

from __future__ import annotations

from typing import Any

from airflow_provider_batches import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's provider schema has it."""
    from airflow_provider_batches.hooks.form import HIDDEN, PLACEHOLDERS, RELABELING, conn_fields

    package = "airflow_provider_batches"
    integration = "Anthropic Message Batches"

    def modules(*names: str) -> list[dict[str, Any]]:
        return [{"integration-name": integration, "python-modules": [f"{package}.{name}" for name in names]}]

    return {
        "package-name": "airflow-provider-batches",
        "name": integration,
        "description": "Create, wait for, read, cancel and delete Anthropic message batches.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://docs.claude.com/en/docs/build-with-claude/batch-processing",
                "tags": ["ai"],
            }
        ],
        "hooks": modules("hooks.batches"),
        "operators": modules("operators.batches", "operators.results", "operators.submit", "operators.teardown"),
        "sensors": modules("sensors.batches"),
        "triggers": modules("triggers.batches", "triggers.events"),
        "config": {
            "message_batches": {
                "description": "Message batches of Anthropic's API.",
                "options": {
                    "storage_folder": {
                        "description": "A folder that all workers share: submissions are kept in `submissions`, and "
                        "results saved in `results`, unless a task has a `path` of its own.",
                        "version_added": __version__,
                        "type": "string",
                        "example": "s3://conn_id@bucket/message-batches",
                        "default": "",
                    },
                    "settle_seconds": {
                        "description": "Seconds after which a batch whose answer was lost, and which is not in the "
                        "list of batches, was never created, so that its requests are sent again.",
                        "version_added": __version__,
                        "type": "float",
                        "example": None,
                        "default": "900",
                    },
                    "page_enabled": {
                        "description": "Whether Airflow's UI has the page Message Batches (Airflow 3.1.1+).",
                        "version_added": __version__,
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                    "conn_ids": {
                        "description": "Connections to offer on the page besides those in the database, separated by "
                        "commas: those of the environment or a secrets backend.",
                        "version_added": __version__,
                        "type": "string",
                        "example": "anthropic_default,anthropic_research",
                        "default": "anthropic_default",
                    },
                    "teardown_dag_id": {
                        "description": "The DAG that the page triggers to cancel or tear down batches. It accepts the "
                        "params of the example DAG teardown_selected.",
                        "version_added": __version__,
                        "type": "string",
                        "example": None,
                        "default": "teardown_selected",
                    },
                },
            }
        },
        "extra-links": [f"{package}.links.batches.BatchesConsoleLink"],
        "connection-types": [
            {
                "hook-class-name": f"{package}.hooks.batches.BatchesHook",
                "hook-name": integration,
                "connection-type": "anthropic_batches",
                "conn-fields": conn_fields(),
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
            }
        ],
    }
