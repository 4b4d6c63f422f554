"""Tags: what a submission adds to each `custom_id`, so that its batches can be recognized by their results."""

from __future__ import annotations

from hashlib import sha256

#: The characters of a tag, which a hyphen separates from the `custom_id`.
TAG = 8
#: The most characters of a `custom_id` that gets a tag; the API allows 64.
MAX_CUSTOM_ID = 64 - TAG - 1


def make_tag(submission_id: str, plan_id: str, chunk: int) -> str:
    """Return the tag of a chunk, which no other chunk, plan or submission has."""
    return sha256(f"{submission_id}/{plan_id}/{chunk}".encode()).hexdigest()[:TAG]


def original_id(custom_id: str) -> str:
    """Return the `custom_id` of a submitted request without its tag, as the user gave it."""
    return custom_id[TAG + 1 :]
