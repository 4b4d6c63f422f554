from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api.errors import APIStatusError, InvalidArgumentError, InvalidResponseError
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.api.models import BatchPage
from airflow_provider_batches.api.pager import RESTARTS, Pager, Walk

GONE = APIStatusError("The cursor is gone.", status=400)


def a_page(*ids, more=True, **cursors):
    return BatchPage(data=[{"id": each} for each in ids], has_more=more, **{"first_id": "f", "last_id": "l", **cursors})


class Listing:
    """The API's list: refuses a cursor that is gone, and pages of `size` batches."""

    def __init__(self, batch, ids):
        self.ids = list(ids)
        self.batch = batch
        self.calls = 0

    def answer(self, call):
        self.calls += 1
        ids, params = self.ids, call.params
        for cursor in ("after_id", "before_id"):
            if cursor in params and params[cursor] not in ids:
                raise GONE
        if "after_id" in params:
            ids = ids[ids.index(params["after_id"]) + 1 :]
        elif "before_id" in params:
            ids = ids[: ids.index(params["before_id"])][::-1]
        size = int(params["limit"])
        page, more = ids[:size], len(ids) > size
        page = page[::-1] if "before_id" in params else page
        return BatchPage(
            data=[self.batch(id=each).snapshot() for each in page],
            has_more=more,
            first_id=page[0] if page else None,
            last_id=page[-1] if page else None,
        )


def walk(listing, *, limit=None, size=1000, after_id=None, before_id=None, delete=False):
    """Return the IDs that a walk brings; `delete` deletes each once it has come."""
    made, found = Walk(limit, size, after_id, before_id), []
    while not made.ended:
        try:
            page = listing.answer(made.call)
        except APIStatusError as error:
            if not made.restart(error):
                raise
            continue
        made.take(page)
        for batch in made.new(page):
            found.append(batch.id)
            if delete:
                listing.ids.remove(batch.id)
    return found


class TestAPager:
    def test_begins_with_the_newest_thousand(self):
        pager = Pager()
        assert (pager.call.params, pager.number, pager.ended) == ({"limit": "1000"}, 0, False)

    @pytest.mark.parametrize(
        ("cursor", "expected"),
        [
            ({}, {"after_id": "l", "limit": "5"}),
            ({"after_id": "a"}, {"after_id": "l", "limit": "5"}),
            ({"before_id": "b"}, {"before_id": "f", "limit": "5"}),
        ],
        ids=["", "after_id", "before_id"],
    )
    def test_continues_in_the_same_direction_with_the_same_page_size(self, cursor, expected):
        pager = Pager(5, **cursor)
        pager.take(a_page("x"))
        assert (pager.call.params, pager.number, pager.ended) == (expected, 1, False)

    def test_ends_with_a_page_that_has_no_more(self):
        pager = Pager()
        pager.take(a_page("x", more=False))
        assert pager.ended

    def test_continues_behind_an_empty_page_that_has_more_and_a_cursor(self):
        pager = Pager(5)
        pager.take(a_page())
        assert (pager.call.params["after_id"], pager.ended) == ("l", False)

    @pytest.mark.parametrize("ids", [(), ("x",)], ids=["empty", "full"])
    def test_does_not_read_the_same_page_again_and_again(self, ids):
        with pytest.raises(InvalidResponseError, match="reports more batches, but no cursor"):
            Pager(after_id="a").take(a_page(*ids, last_id="a"))

    @pytest.mark.parametrize("cursor", ["after_id", "before_id"])
    def test_continues_behind_the_last_batch_of_a_page_without_cursors(self, cursor):
        pager = Pager(**{cursor: "a"})
        pager.take(a_page("x", "y", first_id=None, last_id=None))
        assert pager.call.params[cursor] == ("y" if cursor == "after_id" else "x")

    @pytest.mark.parametrize("last_id", ["../../models", "a,b", " ", "ä"])
    def test_takes_a_cursor_that_would_change_the_url_for_a_mistake_of_the_answer(self, last_id):
        pager = Pager()
        with pytest.raises(InvalidResponseError, match="reports more batches, but no cursor"):
            pager.take(a_page(last_id=last_id))
        assert (pager.call.params, pager.number) == ({"limit": "1000"}, 0)

    @pytest.mark.parametrize("data", [[], [{}], [{"id": None}], [{"id": 5}]])
    def test_takes_a_page_that_has_more_but_names_no_batch_for_a_mistake_of_the_answer(self, data):
        with pytest.raises(InvalidResponseError, match="reports more batches, but no cursor"):
            Pager().take(BatchPage(data=data, has_more=True))

    @pytest.mark.parametrize("size", [0, 1001, "5"])
    def test_has_pages_of_1_to_1000_batches(self, size):
        with pytest.raises(InvalidArgumentError, match="page_size"):
            Pager(size)


class TestBeginningAnew:
    @pytest.fixture
    def pager(self):
        pager = Pager(after_id="a")
        pager.take(a_page("x"))
        return pager

    def test_returns_to_where_the_walk_began(self, pager):
        assert (pager.restart(GONE), pager.call.params["after_id"], pager.number) == (True, "a", 0)

    def test_is_of_no_use_at_the_beginning(self):
        assert not Pager(after_id="a").restart(GONE)

    def test_is_of_no_use_after_other_failures(self, pager):
        for proof in set(Proof) - {Proof.REFUSED}:
            error = APIStatusError("failed", status=500)
            error.evidence = Evidence(proof)
            assert not pager.restart(error)

    def test_has_an_end_if_a_cursor_is_always_refused(self, pager):
        for _ in range(RESTARTS):
            assert pager.restart(GONE)
            pager.take(a_page("x"))
        assert not pager.restart(GONE)


class TestAWalk:
    @pytest.mark.parametrize("limit", [1, 4, 5, 6, 7])
    @pytest.mark.parametrize("size", [1, 2, 5, 1000])
    def test_brings_no_more_than_its_limit(self, limit, size, batch):
        assert walk(Listing(batch, "abcdef"), limit=limit, size=size) == list("abcdef"[:limit])

    def test_reads_no_page_that_is_larger_than_its_limit(self):
        assert Walk(5, 1000, None, None).call.params == {"limit": "5"}

    @pytest.mark.parametrize(("limit", "size", "pages"), [(4, 2, 2), (5, 2, 3), (6, 2, 3), (1, 1, 1)])
    def test_reads_no_page_behind_its_limit(self, limit, size, pages, batch):
        listing = Listing(batch, "abcdef")
        walk(listing, limit=limit, size=size)
        assert listing.calls == pages

    @pytest.mark.parametrize("limit", [0, -1, True, "5", 2.0])
    def test_has_a_limit_of_one_or_more(self, limit):
        with pytest.raises(InvalidArgumentError, match="limit: got"):
            Walk(limit, 1000, None, None)

    @pytest.mark.parametrize("size", [0, 1001, "5"])
    @pytest.mark.parametrize("limit", [None, 3])
    def test_has_pages_of_1_to_1000_batches(self, limit, size):
        with pytest.raises(InvalidArgumentError, match="page_size"):
            Walk(limit, size, None, None)

    @pytest.mark.parametrize("size", [1, 2, 1000])
    def test_goes_back_to_the_newest(self, size, batch):
        assert sorted(walk(Listing(batch, "abcdef"), size=size, before_id="d")) == ["a", "b", "c"]

    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    def test_brings_each_batch_once_although_all_are_deleted_meanwhile(self, size, batch):
        listing = Listing(batch, "abcdefghijklmnopqrst")
        assert walk(listing, size=size, delete=True) == list("abcdefghijklmnopqrst")
        assert listing.ids == []

    def test_brings_no_batch_twice_if_it_begins_anew(self, batch):
        made = Walk(None, 2, None, None)
        listing = Listing(batch, "abcd")
        page = listing.answer(made.call)
        made.take(page)
        made.new(page)
        listing.ids = ["new", "a", "c", "d"]
        assert made.restart(GONE)
        assert [each.id for each in made.new(listing.answer(made.call))] == ["new"]

    def test_ends_with_the_refusal_if_a_cursor_is_always_refused(self, batch):
        class Deaf(Listing):
            def answer(self, call):
                if "after_id" in call.params:
                    self.calls += 1
                    raise GONE
                return super().answer(call)

        listing = Deaf(batch, "abcd")
        with pytest.raises(APIStatusError, match="cursor"):
            walk(listing, size=2)
        assert listing.calls == 2 * (1 + RESTARTS)

    def test_of_a_batch_that_cannot_be_read_is_an_error(self):
        with pytest.raises(InvalidResponseError, match="a batch cannot be read"):
            Walk(None, 1000, None, None).new(a_page("x"))

    @given(data=st.data())
    def test_brings_each_batch_that_stays_exactly_once(self, data, batch):
        """Others come and go meanwhile."""
        listing = Listing(batch, [f"b{number}" for number in range(data.draw(st.integers(0, 12)))])
        staying = set(data.draw(st.lists(st.sampled_from(listing.ids), unique=True))) if listing.ids else set()
        made, found, new = Walk(None, data.draw(st.integers(1, 4)), None, None), [], 0
        while not made.ended:
            try:
                page = listing.answer(made.call)
            except APIStatusError as error:
                if not made.restart(error):
                    return
                continue
            made.take(page)
            found += [each.id for each in made.new(page)]
            listing.ids = [each for each in listing.ids if each in staying or data.draw(st.booleans())]
            if new < 5 and data.draw(st.booleans()):
                new += 1
                listing.ids.insert(0, f"new{new}")
        assert len(found) == len(set(found))
        assert staying <= set(found)
