"""The pages that are made from the code are what the code makes."""

from __future__ import annotations

import importlib
import inspect

import pytest

from scripts.reference import CLASSES, PACKAGE, PAGE, page, parameters, parse


def test_the_reference_is_that_of_the_docstrings() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"


@pytest.mark.parametrize("path", CLASSES)
def test_each_parameter_is_documented(path: str) -> None:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    own = {name for name, found in inspect.signature(cls).parameters.items() if found.kind != found.VAR_KEYWORD}

    assert own <= parse(cls)[1].keys() <= parameters(cls).keys()
