"""Makes docs/reliability.md of the fault matrix: `python -m tests.integration.reliability.page`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from airflow_provider_batches.api.settings import ClientSettings
from tests.integration.reliability.matrix import (
    ATTEMPTS,
    CALLS,
    ERRORS,
    LEGEND,
    LOOKS,
    ONE,
    OTHER_ADVICE,
    ROWS,
    WAITS,
    Row,
    Term,
)

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"
TIMEOUT = ClientSettings.model_fields["timeout"].default

TEXT = """\
<!-- Made by `make reliability` from tests/integration/reliability/matrix.py: change it there. -->

# What happens when something goes wrong

Each cell of this page is a test that makes the fault happen, over real sockets, and asserts what is seen of it
(`tests/integration/reliability/`), for the calls in both clients, sync and async. All numbers are those of the
connection's defaults: `max_retries` {retries}, `timeout` {timeout:g} s.

In short:

- **Reading, canceling and deleting** are made again for some {pauses}, and longer where the API asks for that. A lost
  answer does no harm: a batch that is canceling counts as canceled, and one that the first attempt has deleted as
  deleted.
- **A create** is sent once. It is made again only where no connection came about, since it cannot have arrived then.
- **A wait** outlasts any outage, until its own `timeout`. It ends early only where to go on is of no use.
- **An error** says what happened, to which batch, what the API answered, and what to do.

## Calls

The fault meets the call of the column, not the others; a 404 and the outages of 10 minutes meet all of them. The
methods of the hook, in this order:
{methods}.

{calls}

The last column is for *again*: from the first attempt to the last, where none is answered.

{calls_legend}

## Waits

The fault begins in the middle of the wait.

{ways}

{waits}

{waits_legend}

Waits for several batches, and all deferred waits of a connection, share their requests: see [poller.md](poller.md).

## Errors

All are subclasses of `BatchesError` in `airflow_provider_batches.api`. An operator or a sensor that meets one which
Airflow's retries cannot help fails for good, whatever `retries` it has.

{errors}

The API's own word on trying again (`x-should-retry`) goes before this, except in waits. A sensor whose `timeout` is
over fails for good, as Airflow's sensors do; a cancel operator is tried again. Errors that no fault brings about, such
as `BatchNotEndedError`, are on the page of the [client](client.md#errors).

## What to do about it

- Give operators and sensors `retries`: every task of this package can be run again at any point. With `retries=2` and
  Airflow's default `retry_delay` of 5 minutes, cancel, delete, list and save come through the outages of 10 minutes
  (that is tested too). A retry of a [teardown](teardown.md) does only what is left, and
  one that has begun waits such an outage out in the same try.
- Give a task that creates a batch `retries=0`: Airflow would create a second one. Where the error says that the batch
  may have been created, look into the list of batches (`hook.list_batches()`, newest first).
- In task code of your own, an error of the hook is an exception like any other, and Airflow retries the task as
  `retries` says. `error.passing` tells whether that may help.
- Read results that were cut short again from their beginning. `SaveBatchResultsOperator` and the teardown do that by
  themselves.
"""


def render() -> str:
    """Return the page."""
    fast, slow = (f"{seconds:.0f}" for seconds in ROWS[0].seconds)
    methods = [f"`{method}`" for method in CALLS.values()]
    return TEXT.format(
        retries=ATTEMPTS - 1,
        timeout=TIMEOUT,
        pauses=f"{fast} to {slow} s",
        methods=_listed(methods),
        calls=_calls(),
        calls_legend=_legend(row.calls for row in ROWS),
        ways=_ways(),
        waits=_waits(),
        waits_legend=_legend(row.waits for row in ROWS),
        errors=_errors(),
    )


def _calls() -> str:
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in ROWS:
        cells = (*(_word(row.calls[call]) for call in CALLS), _error(row), _given_up(row))
        lines.setdefault(cells, []).append(row.name)
    head = ("what goes wrong", *CALLS, "error", "given up after")
    return _table(head, [(", ".join(names), *cells) for cells, names in lines.items()])


def _waits() -> str:
    several = [way for way in WAITS if way not in ONE]
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in ROWS:
        columns = [{row.waits[way].word for way in ways} for ways in (ONE, several)]
        # Each way has a cell of its own; that those of a column agree is what the page says.
        cells = tuple(_code(word) for (word,) in columns)
        lines.setdefault(cells, []).append(row.name)
    most = max(lines, key=lambda cells: len(lines[cells]))
    lines[most] = ["everything else of the table above"]
    head = ("what goes wrong", "one batch", "several batches")
    return _table(head, [(", ".join(names), *cells) for cells, names in lines.items()])


def _errors() -> str:
    rows = []
    for kind, found in ERRORS.items():
        advice = [found.says] if found.says else []
        advice += dict.fromkeys(text for (other, _), text in OTHER_ADVICE.items() if other is kind)
        says = " or ".join(f'"{text}"' for text in advice)
        rows.append((f"`{kind.__name__}`", found.when, says, "yes" if found.retried else "no"))
    return _table(("class", "raised for", "says", "Airflow's retries may help"), rows)


def _ways() -> str:
    one = _listed([WAITS[way] for way in ONE])
    several = _listed([WAITS[way] for way in WAITS if way not in ONE])
    return _wrapped(f"One batch: {one}. Several: {several}. Within a column all ways to wait do the same.")


def _legend(rows: Iterable[Mapping[str, Term]]) -> str:
    used = {term.word for terms in rows for term in terms.values()}
    lines = [f"- *{word}*: {text.format(attempts=ATTEMPTS, looks=LOOKS)}" for word, text in LEGEND.items()]
    return "\n".join(_wrapped(line, "  ") for word, line in zip(LEGEND, lines, strict=True) if word in used)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _word(term: Term) -> str:
    return _code(term.word)


def _code(word: str) -> str:
    return f"*{word}*"


def _error(row: Row) -> str:
    others = [f"{call}: `{kind.__name__}`" for call, (kind, _) in row.errors.items()]
    return ", ".join([f"`{row.error.__name__}`", *others])


def _given_up(row: Row) -> str:
    if not any(term.seconds is None for term in row.calls.values()):
        return ""
    low, high = (f"{seconds + ATTEMPTS * row.each:.0f}" for seconds in row.seconds)
    return f"{low} s" if low == high else f"{low} to {high} s"


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render())
