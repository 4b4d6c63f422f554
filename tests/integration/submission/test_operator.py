"""What docs/submit.md says of a task that submits: each row of its table, try by try, as Airflow would run it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_batches.api import BatchesClient, ClientSettings
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.operators.submit import SubmitBatchesOperator
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.submission.ledger import Ledger
from airflow_provider_batches.submission.sending import Sender
from airflow_provider_batches.submission.tags import original_id
from tests.integration.teardown.conftest import make_brisk
from tests.integration.teardown.harness import KilledError, Task

SETTLE = 0.3
Submit = Callable[..., "Submitting"]


class Submitting(Task):
    """A task that submits seven requests in three batches."""

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        given = {"requests": requests(7), "requests_per_batch": 3, "path": f"file://{folder}", "retries": 5, **kwargs}
        super().__init__(SubmitBatchesOperator, **given)
        self.pushed: dict[str, Any] = {}

    def _context(self) -> Any:
        context = super()._context()
        context["ti"].xcom_push = lambda key, value: self.pushed.__setitem__(key, json.loads(json.dumps(value)))
        return context

    def clear(self) -> None:
        """Clear the task, as a person would."""
        self.cleared = self.tries

    def change(self, **kwargs: Any) -> None:
        self._kwargs.update(kwargs)


def requests(count: int, prefix: str = "r") -> list[dict[str, Any]]:
    message = {"role": "user", "content": "x"}
    return [
        {"custom_id": f"{prefix}{n}", "params": {"model": "m", "max_tokens": 5, "messages": [message]}}
        for n in range(count)
    ]


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    make_brisk(monkeypatch)
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__SETTLE_SECONDS", str(SETTLE))
    for module in ("sending", "doubt"):
        monkeypatch.setattr(f"airflow_provider_batches.submission.{module}.DEADLINE", 0.2, raising=False)
    monkeypatch.setattr("airflow_provider_batches.submission.doubt.MARGIN", 2.0)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(batch_seconds=0.2) as api:
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        yield api


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "submissions"


@pytest.fixture
def submit(api: Emulator, folder: Path) -> Submit:
    return lambda **kwargs: Submitting(folder, **kwargs)


def sent(api: Emulator) -> Counter[str]:
    """Return how often each request stands in a batch."""
    found = Counter[str]()
    for batch_id in api.ids():
        found.update(map(original_id, stored(api, batch_id).custom_ids or []))
    return found


def once(count: int, prefix: str = "r") -> Counter[str]:
    return Counter({f"{prefix}{number}": 1 for number in range(count)})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*.json"))


def test_a_task_returns_the_batches_in_the_order_of_the_requests(submit: Submit, api: Emulator, folder: Path) -> None:
    task = submit()
    batch_ids = task.run()

    first = [original_id((stored(api, batch_id).custom_ids)[0]) for batch_id in batch_ids]
    assert first == ["r0", "r3", "r6"]
    assert task.pushed["created_batch_ids"] == batch_ids
    assert task.pushed["submission"] == {
        "folder": f"file://{next(folder.iterdir())}",
        "requests": 7,
        "size": task.pushed["submission"]["size"],
        "batches": 3,
        "models": {"m": 7},
        "max_tokens": {"m": 35},
        "estimated_cost": None,
    }
    assert sent(api) == once(7)
    assert api.count("create") == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault("create", drop_after=True),
        Fault("create", status=500, applied=True),
        Fault("create", html=True, applied=True),
        Fault("create", status=403, gateway="text", applied=True),
        Fault("create", cut_after=40),
        Fault("create", status=409, applied=True),
    ],
    ids=["lost", "500", "HTML", "403 of a gateway", "cut", "409"],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_batch_whose_answer_was_lost_is_found_by_its_tag(
    fault: Fault, deferrable: bool, submit: Submit, api: Emulator
) -> None:
    foreign = api.add_batch(3, status="in_progress", batch_seconds=0.1)
    api.fault(fault)
    task = submit(deferrable=deferrable, poll_interval=0.05, wait_for_completion=True)
    batch_ids = task.run()

    assert sent(api) - Counter(stored(api, foreign).custom_ids or []) == once(7)
    assert foreign not in batch_ids
    assert len(batch_ids) == 3
    assert bool(task.deferrals) == deferrable or not task.deferrals


@pytest.mark.parametrize(
    "fault", [Fault("create", drop=True), Fault("create", status=500), Fault("create", html=True)], ids=str
)
def test_a_batch_that_was_never_created_is_sent_again_once_that_is_certain(
    fault: Fault, submit: Submit, api: Emulator, folder: Path
) -> None:
    api.fault(fault)
    batch_ids = submit().run()

    assert sent(api) == once(7)
    assert len(batch_ids) == 3
    assert "1-00000-1.void.json" in files(folder)


def test_a_rate_limit_is_outlasted(submit: Submit, api: Emulator, folder: Path) -> None:
    api.fault(Fault("create", status=429, times=2))

    assert len(submit().run()) == 3
    assert sent(api) == once(7)
    assert [name for name in files(folder) if "void" in name] == ["1-00000-1.void.json", "1-00000-2.void.json"]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("create", status=400, message="model: unknown"), "model: unknown"),
        (Fault("create", status=413), "Split the batch"),
        (Fault("create", status=402), "spend limit"),
    ],
    ids=["400", "413", "402"],
)
def test_a_refusal_fails_and_a_cleared_task_sends_what_is_left(
    fault: Fault, text: str, submit: Submit, api: Emulator
) -> None:
    api.fault(Fault(**{**vars(fault), "after": 1}))
    task = submit()
    with pytest.raises(AirflowFailException, match=text):
        task.run()
    assert len(task.pushed["created_batch_ids"]) == 1
    task.clear()

    assert task.run()[0] == task.pushed["created_batch_ids"][0]
    assert sent(api) == once(7)


@pytest.mark.parametrize("row", ["upload", "claimed", "sent"])
def test_a_worker_that_is_killed_loses_nothing(
    row: str, submit: Submit, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise KilledError

    owner, name = {"upload": (Folder, "pieces"), "claimed": (Ledger, "records"), "sent": (Ledger, "record_batch")}[row]
    task = submit()
    with monkeypatch.context() as patch:
        if row == "claimed":
            claim = Ledger.claim

            def claim_and_die(*args: Any) -> bool:
                patch.setattr(owner, name, killed)
                return claim(*args)

            patch.setattr(Ledger, "claim", claim_and_die)
        else:
            patch.setattr(owner, name, killed)
        with pytest.raises(KilledError):
            task.run()

    assert len(task.run()) == 3
    assert sent(api) == once(7)


def test_a_retry_does_not_read_the_requests_again(submit: Submit, api: Emulator) -> None:
    calls: list[int] = []

    def source() -> Any:
        calls.append(1)
        return requests(7)

    api.fault(Fault("create", status=400, after=1))
    task = submit(requests=source)
    with pytest.raises(AirflowFailException):
        task.run()
    task.run()

    assert calls == [1]
    assert sent(api) == once(7)


class TestAClear:
    def test_with_the_same_requests_returns_the_same_batches(self, submit: Submit, api: Emulator) -> None:
        task = submit()
        before = task.run()
        task.clear()

        assert task.run() == before
        assert api.count("create") == 3

    def test_of_a_task_whose_batches_were_all_deleted_is_new_work(self, submit: Submit, api: Emulator) -> None:
        task = submit(wait_for_completion=True, poll_interval=0.05)
        before = task.run()
        for batch_id in before:
            client(api).delete(batch_id)
        task.clear()
        after = task.run()

        assert len(after) == 3
        assert not set(after) & set(before)

    def test_of_a_task_of_which_one_batch_is_left_submits_nothing(self, submit: Submit, api: Emulator) -> None:
        task = submit(wait_for_completion=True, poll_interval=0.05)
        before = task.run()
        client(api).delete(before[0])
        task.change(wait_for_completion=False, poll_interval=60)
        task.clear()

        assert task.run() == before
        assert api.count("create") == 3

    def test_with_other_requests_fails_and_names_the_batches(self, submit: Submit, api: Emulator) -> None:
        task = submit()
        before = task.run()
        task.change(requests=requests(7, "other"))
        task.clear()

        with pytest.raises(AirflowFailException, match=rf"{before[0]}.* on_changed_input='submit'"):
            task.run()
        assert api.count("create") == 3

    def test_with_other_requests_submits_them_if_that_is_set(self, submit: Submit, api: Emulator) -> None:
        task = submit(on_changed_input="submit")
        before = task.run()
        task.change(requests=requests(7, "other"))
        task.clear()

        assert not set(task.run()) & set(before)
        assert sent(api) == once(7) + once(7, "other")


@pytest.mark.parametrize("why", ["deleted", "canceled", "expired"])
def test_a_retry_never_replaces_a_batch(why: str, submit: Submit, api: Emulator) -> None:
    task = submit(wait_for_completion=why == "deleted")
    batch_id = task.run()[0]
    batch = stored(api, batch_id)
    if why == "deleted":
        client(api).delete(batch_id)
    elif why == "canceled":
        client(api).cancel(batch_id)
    else:
        batch.created_at -= 25 * 3600
        batch.batch_seconds = 1e9

    with pytest.raises(AirflowFailException, match=rf"{batch_id} \({why}\).* not submitted again by a retry"):
        task.run()
    assert api.count("create") == 3


def stored(api: Emulator, batch_id: str) -> Any:
    """Return a batch as the emulator holds it."""
    return api._store.get(batch_id)


def client(api: Emulator) -> BatchesClient:
    connection = json.loads(api.connection_json)
    return BatchesClient(ClientSettings.parse(api_key=connection["password"], base_url=api.url))


class TestDoubt:
    def test_fails_the_task_if_that_is_set_and_a_retry_decides(self, submit: Submit, api: Emulator) -> None:
        api.fault(Fault("create", drop_after=True))
        task = submit(on_doubt="fail")
        with pytest.raises(AirflowException, match=r"Chunks 1 of submission .* may be: msgbatch_.* on_doubt is 'fail'"):
            task.run()
        stored(api, api.ids()[-1]).batch_seconds = 0.0

        assert len(task.run()) == 3
        assert sent(api) == once(7)

    def test_lasts_while_the_results_of_a_candidate_cannot_be_read(self, submit: Submit, api: Emulator) -> None:
        api.add_batch(3, status="ended")
        api.fault(Fault("create", drop=True))
        api.fault(Fault("results", status=400, times=None))
        with pytest.raises(AirflowException, match=r"whose results cannot be read\. If they are another team's"):
            submit().run()
        assert api.count("create") == 3

    def test_lasts_while_the_list_cannot_be_read(self, submit: Submit, api: Emulator) -> None:
        api.fault(Fault("create", drop_after=True))
        api.fault(Fault("list", status=500, after=1, times=None))
        task = submit()
        with pytest.raises(AirflowException, match="list batches"):
            task.run()
        api.clear_faults()

        assert len(task.run()) == 3
        assert sent(api) == once(7)

    def test_never_takes_the_batch_of_a_mapped_sibling(self, submit: Submit, api: Emulator) -> None:
        tasks = [submit() for _ in range(3)]
        for number, task in enumerate(tasks):
            task.map_index = number
            api.fault(Fault("create", drop_after=True, after=number))
        found = [batch_id for task in tasks for batch_id in task.run()]

        assert len(set(found)) == len(api.ids()) == 9


class TestTheConnection:
    def test_may_not_change_to_another_api_while_batches_are_there(
        self, submit: Submit, api: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api.fault(Fault("create", status=400, after=1))
        task = submit()
        with pytest.raises(AirflowFailException):
            task.run()
        with Emulator() as other:
            monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", other.connection_json)
            with pytest.raises(AirflowFailException, match=r"began with 'http://127\.0\.0\.1.* another submission_id"):
                task.run()
            assert other.count("create") == 0

    def test_is_asked_as_seldom_as_possible(self, submit: Submit, api: Emulator) -> None:
        submit().run()

        assert Counter(request.endpoint for request in api.requests) == {"list": 1, "create": 3}


class TestTwoTasks:
    def test_that_plan_at_once_send_one_plan(
        self, submit: Submit, api: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create_plan = Ledger.create_plan

        def after_another(self: Ledger, plan: Any) -> bool:
            monkeypatch.setattr(Ledger, "create_plan", create_plan)
            submit().run()
            return create_plan(self, plan)

        monkeypatch.setattr(Ledger, "create_plan", after_another)
        batch_ids = submit().run()

        assert sent(api) == once(7)
        assert len(batch_ids) == 3
        assert len(list(folder.glob("*/requests/*"))) == 3

    def test_that_send_at_once_create_one_batch(
        self, submit: Submit, api: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim, others = Ledger.claim, [submit()]

        def after_another(self: Ledger, *args: Any) -> bool:
            if others:
                other = others.pop()
                other.tries = 1
                other.run()
            return claim(self, *args)

        monkeypatch.setattr(Ledger, "claim", after_another)

        assert len(submit().run()) == 3
        assert sent(api) == once(7)

    def test_an_earlier_try_that_wakes_up_too_late_sends_nothing(
        self, submit: Submit, api: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elapsed = iter([31.0])
        monkeypatch.setattr(
            "airflow_provider_batches.submission.sending._Clock.elapsed", lambda self: next(elapsed, 0.0)
        )

        assert len(submit().run()) == 3
        assert sent(api) == once(7)


def test_a_folder_that_was_lost_is_never_taken_for_a_new_submission(
    submit: Submit, api: Emulator, folder: Path
) -> None:
    import shutil

    api.fault(Fault("create", status=400, after=1))
    task = submit()
    with pytest.raises(AirflowFailException):
        task.run()
    shutil.rmtree(folder)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match="All workers must share this folder"):
            task.run()
        task.clear()
    assert api.count("create") == 2


def test_chunks_that_can_never_be_claimed_in_time_fail_the_task(
    submit: Submit, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches.submission.sending._Clock.elapsed", lambda self: 31.0)

    with pytest.raises(AirflowException, match=r"were not sent in 6 attempts"):
        submit().run()
    assert api.ids() == []


def test_requests_that_changed_in_the_folder_are_not_sent(submit: Submit, api: Emulator, folder: Path) -> None:
    api.fault(Fault("create", status=400, after=1))
    task = submit()
    with pytest.raises(AirflowFailException):
        task.run()
    for path in folder.glob("*/requests/*"):
        path.write_bytes(path.read_bytes().replace(b'"content":"x"', b'"content":"y"'))

    with pytest.raises(AirflowException, match="is not what was written"):
        task.run()
    assert api.count("create") == 2


def test_files_are_removed_once_all_is_sent_if_that_is_set(submit: Submit, folder: Path) -> None:
    task = submit(keep_requests=False)
    batch_ids = task.run()
    assert list(folder.glob("*/requests/*")) == []

    assert task.run() == batch_ids


def test_work_that_spans_runs_is_submitted_once(submit: Submit, api: Emulator) -> None:
    tasks = [submit(submission_id="backfill-2026") for _ in range(2)]
    for number, task in enumerate(tasks):
        task.run_id = f"run {number}"

    assert tasks[0].run() == tasks[1].run()
    assert api.count("create") == 3


def test_a_report_sends_and_writes_nothing(submit: Submit, api: Emulator, folder: Path) -> None:
    task = submit(report_only="true")

    assert task.run() == []
    assert (task.pushed["submission"]["requests"], task.pushed["submission"]["folder"]) == (7, None)
    assert api.requests == []
    assert not folder.exists()


@pytest.mark.parametrize(("on_empty", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)])
def test_no_requests_skip_or_fail(on_empty: str, error: type[Exception], submit: Submit, api: Emulator) -> None:
    with pytest.raises(error, match="There are no requests"):
        submit(requests=[], on_empty=on_empty).run()
    assert api.requests == []


def test_a_request_that_is_wrong_sends_nothing(submit: Submit, api: Emulator) -> None:
    with pytest.raises(AirflowFailException, match=r"requests\[7\] lacks params"):
        submit(requests=[*requests(7), {"custom_id": "z"}]).run()
    assert api.requests == []


PRICES = {"m": {"input": 1.0, "output": 5.0}}


def test_requests_that_cost_too_much_send_nothing(submit: Submit, api: Emulator, folder: Path) -> None:
    # 35 tokens of output at 5 dollars a million, half of that in a batch, and a few tokens of input.
    with pytest.raises(AirflowFailException, match=r"max_cost: the requests may cost about \$0\.00, more than \$0\.00"):
        submit(max_cost=0.00005, prices=PRICES).run()
    assert {request.endpoint for request in api.requests} == {"count_tokens"}
    assert list(folder.glob("*/requests/*")) == []

    task = submit(max_cost=0.001, prices=PRICES)
    assert len(task.run()) == 3
    assert 0.00005 < task.pushed["submission"]["estimated_cost"] < 0.001


def test_a_limit_without_a_price_sends_nothing(submit: Submit, api: Emulator) -> None:
    with pytest.raises(AirflowFailException, match="the price of model 'm' is not known"):
        submit(max_cost=5.0, prices={}).run()
    assert api.requests == []


def test_the_folder_of_the_deployment_is_the_default(
    api: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Submitting(tmp_path, path=None)
    with pytest.raises(AirflowFailException, match=r"path: it is not given, and \[message_batches\] storage_folder"):
        task.run()
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__STORAGE_FOLDER", f"file://{tmp_path}/shared/")
    task.run()

    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["submissions"]


class TestAKill:
    @pytest.fixture
    def canceled(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        """The batches that a user's mark would cancel."""
        found: list[list[str]] = []

        async def cancel(ti: Any, batch_ids: list[str], *_: Any) -> None:
            found.append(batch_ids)

        monkeypatch.setattr("airflow_provider_batches.operators.submit.cancel_for_user", cancel)
        return found

    def kill(self, task: Submitting, monkeypatch: pytest.MonkeyPatch) -> None:
        """End the task after its first batch, as a user does who marks it as failed."""
        send, started = Sender.send, []
        process = task._process

        def remember() -> Any:
            started.append(process())
            return started[-1]

        def killed(self: Sender, number: int) -> Any:
            found = send(self, number)
            if number == 1:
                started[-1].on_kill()
            return found

        monkeypatch.setattr(task, "_process", remember)
        monkeypatch.setattr(Sender, "send", killed)
        with pytest.raises(AirflowException, match=r"The task was stopped\."):
            task.run()

    def test_leaves_the_batches_running_by_default(
        self, submit: Submit, api: Emulator, canceled: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.kill(submit(), monkeypatch)

        assert canceled == []
        assert api.count("create") == 2

    def test_cancels_those_that_were_created_if_that_is_set(
        self, submit: Submit, api: Emulator, canceled: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = submit(cancel_on_kill=True)
        self.kill(task, monkeypatch)

        assert canceled == [task.pushed["created_batch_ids"][:1]]


def test_a_task_that_is_stopped_sends_nothing_more(
    submit: Submit, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Sender.send

    def stopped_after_one(self: Sender, number: int) -> Any:
        found = send(self, number)
        self.stopped.__self__.set()  # type: ignore[attr-defined]
        return found

    task = submit()
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "send", stopped_after_one)
        with pytest.raises(AirflowException, match=r"The task was stopped\. A retry sends the remaining requests"):
            task.run()
    assert api.count("create") == 1

    assert len(task.run()) == 3
    assert sent(api) == once(7)
