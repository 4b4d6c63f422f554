"""Estimates what requests cost, before they are sent."""

from __future__ import annotations

import random
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from airflow_provider_batches.api import BatchesClient, InvalidArgumentError
from airflow_provider_batches.api.errors import shown
from airflow_provider_batches.submission.ledger import Summary

#: Requests of each model whose input tokens are counted.
SAMPLE = 20
#: What a batch costs, as a share of the price of single requests.
BATCH_SHARE = 0.5

#: Dollars per million `input` and `output` tokens, by model.
Prices = Mapping[str, Mapping[str, float]]


class Samples:
    """Keeps some requests of each model at random, and the size of all."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.kept: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._seen: dict[str, int] = {}

    def add(self, params: dict[str, Any], size: int) -> None:
        """Add a request, whose `params` have so many bytes."""
        model = params["model"]
        kept = self.kept.setdefault(model, [])
        self.sizes[model] = self.sizes.get(model, 0) + size
        seen = self._seen[model] = self._seen.get(model, 0) + 1
        # Each request is kept with the same probability, however many there are.
        place = len(kept) if len(kept) < SAMPLE else random.randrange(seen)  # noqa: S311
        if place < SAMPLE:
            kept[place : place + 1] = [(size, params)]


def read_prices(prices: object) -> Prices | None:
    """Return checked prices, None if there are none."""
    if prices is None:
        return None
    rule = "it must be a dict like {'model': {'input': 1.0, 'output': 5.0}}, in dollars per million tokens"
    if not isinstance(prices, Mapping):
        raise InvalidArgumentError("prices", f"got {type(prices).__name__}; {rule}.")
    for model, price in prices.items():
        numbers = [price.get(name) for name in ("input", "output")] if isinstance(price, Mapping) else [None]
        if not all(isinstance(number, (int, float)) and 0 <= number < float("inf") for number in numbers):
            raise InvalidArgumentError("prices", f"got {price!r} for {model!r}; {rule}.")
    return prices


def read_max_cost(max_cost: object) -> float | None:
    """Return a checked limit in dollars; None means no limit."""
    if max_cost is None:
        return None
    if isinstance(max_cost, bool) or not isinstance(max_cost, (int, float)) or not 0 < max_cost < float("inf"):
        raise InvalidArgumentError("max_cost", f"got {max_cost!r}; it must be a number of dollars above 0, or None.")
    return float(max_cost)


def read_estimated_cost(value: object) -> float | None:
    """Return a checked number of dollars, which a template may have rendered as text; None if it is not known."""
    if value in (None, "", "None"):
        return None
    try:
        dollars = -1.0 if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        dollars = -1.0
    if not 0 <= dollars < float("inf"):
        raise InvalidArgumentError(
            "estimated_cost", f"got {shown(value)}; it must be a number of dollars, 0 or more, or None."
        )
    return dollars


def estimate(
    client: BatchesClient, samples: Samples, summary: Summary, prices: Prices | None, max_cost: float | None = None
) -> float:
    """Return about how many dollars the requests cost, if each answer has `max_tokens`.

    The input is counted at the API for a sample of the requests, which costs nothing.

    :param prices: Default: those of the package `genai-prices`, if it is installed.
    :param max_cost: The most dollars that they may cost. Default: no limit.
    :raises InvalidArgumentError: The price of a model is not known, or the requests may cost more than `max_cost`.
    """
    # All prices first: without one, there is nothing to count.
    known = {model: _price(model, prices) for model in summary.models}
    total = 0.0
    for model, (input_price, output_price) in known.items():
        kept = samples.kept[model]
        counted = sum(client.count_tokens(params) for _, params in kept)
        input_tokens = counted * samples.sizes[model] / sum(size for size, _ in kept)
        total += (input_tokens * input_price + summary.max_tokens[model] * output_price) / 1e6
    cost = total * BATCH_SHARE
    if max_cost is not None and cost > max_cost:
        text = f"the requests may cost about ${cost:.2f}, more than ${max_cost:.2f}. Nothing was sent."
        raise InvalidArgumentError("max_cost", text)
    return cost


def spent(usage: Mapping[str, Mapping[str, int]], prices: Prices | None) -> float | None:
    """Return how many dollars answers have cost, None if the price of a model is not known.

    A token that is written to the prompt cache costs 1.25 input tokens, and one that is read from it 0.1.

    :param usage: The sums of the usage counters, by model.
    """
    total = 0.0
    for model, counts in usage.items():
        try:
            input_price, output_price = _price(model, prices)
        except InvalidArgumentError:
            return None
        cached = 1.25 * counts.get("cache_creation_input_tokens", 0) + 0.1 * counts.get("cache_read_input_tokens", 0)
        total += (counts.get("input_tokens", 0) + cached) * input_price + counts.get("output_tokens", 0) * output_price
    return total / 1e6 * BATCH_SHARE


def _price(model: str, prices: Prices | None) -> tuple[float, float]:
    """Return the prices of a million input and output tokens."""
    if prices is not None and model in prices:
        return prices[model]["input"], prices[model]["output"]
    if prices is None and find_spec("genai_prices"):
        from genai_prices import Usage, calc_price

        million = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
        try:
            found = calc_price(million, model_ref=model, provider_id="anthropic")
            return float(found.input_price), float(found.output_price)
        except LookupError:
            pass
    raise InvalidArgumentError(
        "prices",
        f"the price of model {model!r} is not known. Set prices={{{model!r}: {{'input': ..., 'output': ...}}}}, in "
        "dollars per million tokens, or install genai-prices. Nothing was sent.",
    )
