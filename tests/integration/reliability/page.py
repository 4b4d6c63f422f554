"""Makes docs/reliability.md from the fault matrix: `python -m tests.integration.reliability.page`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from airflow_provider_batches.api.settings import ClientSettings
from tests.integration.reliability.matrix import (
    ATTEMPTS,
    CALLS,
    CALLS_LEGEND,
    ERRORS,
    FOREIGN,
    FULL_WAITS,
    KEY_ATTEMPTS,
    PAUSES,
    RETRIEVALS,
    ROWS,
    WAITS,
    WAITS_LEGEND,
    WORKING_KEY_ATTEMPTS,
    WRONG_ADDRESS_POLLS,
    Row,
    Term,
)

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"
TIMEOUT = ClientSettings.model_fields["timeout"].default

TEXT = """\
<!-- Made by `make reliability` from tests/integration/reliability/matrix.py: change it there. -->

# What happens when something goes wrong

Each cell on this page is a test that causes the fault over real sockets and checks the outcome
(`tests/integration/reliability/`). Faults with the same consequences share a row and its tests. All calls are tested
through the sync client, and waits through the sensor: in poke mode for one batch, in the triggerer for several. The
async client and the other ways to wait run the same code, and are tested with a selection of the faults. All numbers
are for the defaults of the connection: `max_retries` {retries}, `timeout` {timeout:g} s.

In short:

- **Reads, cancels and deletes** are retried for {pauses}, and longer if the API asks for that. A lost answer does no
  harm: a batch that is canceling counts as canceled, and one that an earlier attempt deleted counts as deleted.
- **A create** is retried only if nothing can have been created: no connection was made, or the API itself refused it
  for a reason that may pass (401, 403, 429). Through a gateway, every failure of a create is *in doubt*, unless no
  connection was made.
- **A wait** outlasts any outage, until its own `timeout`. It stops early only if waiting longer cannot help.
- **Only the API's own refusals count.** A refusal is the API's own if it has the API's error format and a request ID.
  A *foreign answer* comes from a proxy, a firewall or a gateway, and proves nothing about the batch or the key. After a
  right answer from the same address it is an outage. Before any right answer the address is most likely wrong, and the
  error is raised soon. 413 and 429 count no matter who sends them.
- **An error** says what happened, to which batch, which URL was asked, what was answered, and what to do.

## Calls

The fault strikes only the call of the column. Results are preceded by a retrieval, which is answered. The
methods of the hook, in this order:
{methods}.

{calls}

{foreign}

The last column is for *retries*: the time from the first attempt to the last, if none succeeds. Each read that hangs
adds {timeout:g} s.

{calls_legend}

## Waits

The fault begins in the middle of the wait, except before any right answer. For several batches it strikes the list and
the retrievals.

{ways}

{waits}

{waits_legend}

Waits for several batches, and all deferred waits of a connection, share their requests: see [poller.md](poller.md).

## Errors

All are subclasses of `BatchesError` in `airflow_provider_batches.api`. An operator or a sensor raises them as Airflow's
exceptions. If a retry cannot help, the task fails immediately, no matter what its `retries` are.

{errors}

The API's own word on retrying (`x-should-retry`) overrides this table, except in waits. A sensor whose `timeout` is
over fails permanently, as Airflow's sensors do; Airflow retries a cancel operator. Errors that no fault causes, such as
`BatchNotEndedError`, are on the page of the [client](client.md#errors).

## What to do about it

- Give operators and sensors `retries`: every task of this package can be run again at any point. With `retries=2` and
  Airflow's default `retry_delay` of 5 minutes, cancel, delete, list and save survive an outage of 10 minutes (this is
  tested). A retry of a [teardown](teardown.md) does only what is left, and a teardown that has begun outlasts such an
  outage within the same try.
- Give a task that creates a batch `retries=0`: Airflow would create a second one. If the error says that the batch may
  have been created, look into the list of batches (`hook.list_batches()`, newest first). `error.evidence.in_doubt`
  says the same to a program.
- Rotate a key without stopping anything: change the connection, then revoke the old key. If a key is refused, the
  connection is read again. If that does not help within the times above, Airflow retries the task.
- In your own task code, an error of the hook is an exception like any other, and Airflow retries the task as `retries`
  says. `error.retryable` says whether that may help.
- If results were incomplete, read them again from the beginning. `SaveBatchResultsOperator` and the teardown do so
  themselves.
"""


def render() -> str:
    """Return the page."""
    return TEXT.format(
        retries=ATTEMPTS - 1,
        timeout=TIMEOUT,
        pauses=_seconds(PAUSES),
        methods=_listed([f"`{method}`" for method in CALLS.values()]),
        calls=_calls(),
        foreign=_wrapped(f"A foreign answer is, in these tests, {_listed([fault.name for fault in FOREIGN], 'or')}."),
        calls_legend=_legend(CALLS_LEGEND),
        ways=_ways(),
        waits=_waits(),
        waits_legend=_legend(WAITS_LEGEND),
        errors=_errors(),
    )


def _calls() -> str:
    rows = [row for row in ROWS if row.calls]
    head = ("what goes wrong", *CALLS, "error", "given up after")
    return _grouped(head, {row.name: (*_cells(row.calls, CALLS), _error(row), _given_up(row)) for row in rows})


def _waits() -> str:
    head = ("what goes wrong", "one batch", "several batches")
    lines = {row.name: _cells(row.waits, FULL_WAITS) for row in ROWS}
    usual = max(lines.values(), key=list(lines.values()).count)
    lines = {name: cells for name, cells in lines.items() if cells != usual}
    return _grouped(head, {**lines, "everything else": usual})


def _errors() -> str:
    rows = []
    for kind, found in ERRORS.items():
        says = " or ".join(f'"{text}"' for text in (found.says, *found.also) if text)
        rows.append((f"`{kind.__name__}`", found.when, says, "yes" if kind.retryable else "no"))
    return _table(("class", "raised for", "says", "Airflow retries the task"), rows)


def _ways() -> str:
    one = _listed([text for way, text in WAITS.items() if not way.startswith("several")])
    several = _listed([text for way, text in WAITS.items() if way.startswith("several")])
    return _wrapped(f"One batch: {one}. Several: {several}. Within a column, all ways to wait do the same.")


def _legend(legend: Mapping[str, str]) -> str:
    numbers = {
        "attempts": ATTEMPTS,
        "retrievals": RETRIEVALS,
        "key_attempts": KEY_ATTEMPTS,
        "working_key_attempts": WORKING_KEY_ATTEMPTS,
        "wrong_address_polls": WRONG_ADDRESS_POLLS,
    }
    return "\n".join(_wrapped(f"- *{word}*: {text.format(**numbers)}", "  ") for word, text in legend.items())


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _cells(terms: Mapping[str, Term], columns: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"*{terms[column].word}*" if column in terms else "" for column in columns)


def _error(row: Row) -> str:
    """Return the classes of a row's errors; calls with another one than most are named."""
    calls: dict[str, list[str]] = {}
    for call in row.calls:
        calls.setdefault(f"`{row.error_of(call).__name__}`", []).append(call)
    return "; ".join(
        kind if len(calls) == 1 or kind == f"`{row.error.__name__}`" else f"{', '.join(named)}: {kind}"
        for kind, named in calls.items()
    )


def _given_up(row: Row) -> str:
    return _seconds(row.seconds) if any(term.seconds is None for term in row.calls.values()) else ""


def _seconds(seconds: tuple[float, float]) -> str:
    low, high = (f"{each:.0f}" for each in seconds)
    return f"{low} s" if low == high else f"{low} to {high} s"


def _listed(items: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def _grouped(head: Sequence[str], lines: Mapping[str, tuple[str, ...]]) -> str:
    """Return a table in which lines with the same cells share a row."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, cells in lines.items():
        names.setdefault(cells, []).append(name)
    return _table(head, [(", ".join(found), *cells) for cells, found in names.items()])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render())
