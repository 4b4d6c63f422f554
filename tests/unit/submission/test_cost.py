from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.submission import cost
from airflow_provider_batches.submission.cost import (
    SAMPLE,
    Samples,
    estimate,
    read_estimated_cost,
    read_max_cost,
    read_prices,
)
from airflow_provider_batches.submission.ledger import Summary

PRICES = {"m": {"input": 1.0, "output": 5.0}}


class Client:
    """Counts one token for each byte of the `size` that a request carries."""

    def __init__(self) -> None:
        self.counted = 0

    def count_tokens(self, params: dict[str, Any]) -> int:
        self.counted += 1
        return int(params["size"])


def samples(model: str, sizes: list[int]) -> Samples:
    made = Samples()
    for size in sizes:
        made.add({"model": model, "size": size}, size)
    return made


def summary(**max_tokens: int) -> Summary:
    return Summary(1, 1, dict.fromkeys(max_tokens, 1), max_tokens, "")


@pytest.mark.parametrize("count", [1, SAMPLE, 10 * SAMPLE])
def test_the_input_of_a_sample_stands_for_all(count: int) -> None:
    client: Any = Client()

    # 1,000 tokens of input for each request, at 1 dollar a million, and half of it in a batch.
    found = estimate(client, samples("m", [1000] * count), summary(m=0), PRICES)

    assert found == pytest.approx(count * 1000 / 1e6 / 2)
    assert client.counted == min(count, SAMPLE)


def test_answers_count_with_their_max_tokens() -> None:
    client: Any = Client()

    assert estimate(client, samples("m", [1]), summary(m=1_000_000), PRICES) == pytest.approx(2.5, abs=1e-5)


def test_models_are_counted_with_their_own_prices() -> None:
    both = samples("m", [1_000_000])
    both.add({"model": "n", "size": 1_000_000}, 1_000_000)
    prices = {**PRICES, "n": {"input": 3.0, "output": 0.0}}
    client: Any = Client()

    assert estimate(client, both, summary(m=0, n=0), prices) == pytest.approx((1 + 3) / 2)


def test_each_request_is_in_the_sample_with_the_same_probability() -> None:
    found = [size for _ in range(300) for size, _ in samples("m", list(range(100))).kept["m"]]

    assert len(found) == 300 * SAMPLE
    assert sum(found) / len(found) == pytest.approx(49.5, abs=3)


class TestAPrice:
    def test_that_is_not_known_is_an_error_before_anything_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cost, "find_spec", lambda name: None)
        client: Any = Client()

        for prices in (PRICES, None):
            with pytest.raises(
                InvalidArgumentError, match=r"prices: the price of model 'other' is not known\. Set prices="
            ):
                estimate(client, samples("other", [1]), summary(other=1), prices)
        assert client.counted == 0

    def test_comes_from_genai_prices_if_none_are_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def calc_price(usage: Any, model_ref: str, provider_id: str) -> Any:
            assert (usage.input_tokens, usage.output_tokens, provider_id) == (1_000_000, 1_000_000, "anthropic")
            if model_ref != "m":
                raise LookupError
            return SimpleNamespace(input_price="1", output_price="5")

        package: Any = ModuleType("genai_prices")
        package.Usage, package.calc_price = SimpleNamespace, calc_price
        monkeypatch.setitem(sys.modules, "genai_prices", package)
        monkeypatch.setattr(cost, "find_spec", lambda name: package)
        client: Any = Client()

        assert estimate(client, samples("m", [2_000_000]), summary(m=0), None) == pytest.approx(1.0)
        with pytest.raises(InvalidArgumentError, match="'other' is not known"):
            estimate(client, samples("other", [1]), summary(other=1), None)

    @pytest.mark.parametrize(
        "prices",
        [5, {"m": 1}, {"m": {"input": 1}}, {"m": {"input": 1, "output": "5"}}, {"m": {"input": -1, "output": 5}}],
    )
    def test_of_another_shape_is_refused(self, prices: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=r"prices: got .* in dollars per million tokens"):
            read_prices(prices)


@pytest.mark.parametrize("value", [0, -1, True, "5", float("nan")])
def test_a_limit_that_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"max_cost: got .* above 0"):
        read_max_cost(value)


@pytest.mark.parametrize("value", [-1, True, "much", [], float("nan")])
def test_an_estimate_that_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"estimated_cost: got .* a number of dollars, 0 or more"):
        read_estimated_cost(value)


@pytest.mark.parametrize(("value", "dollars"), [(None, None), ("", None), ("None", None), ("0.5", 0.5), (0, 0.0)])
def test_an_estimate_may_be_rendered_text(value: Any, dollars: float | None) -> None:
    assert read_estimated_cost(value) == dollars
