"""The text that tests of words share, and the number of random examples of a property that sets none itself.

HYPOTHESIS_PROFILE=thorough takes many more examples.
"""

import os

import pytest
from hypothesis import settings

from sparseopt import datasets

settings.register_profile("quick", max_examples=300, deadline=None)
settings.register_profile("thorough", max_examples=20_000, deadline=None)
settings.register_profile("stateful", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def documentation():
    """Python's documentation, which takes seconds to collect."""
    return datasets.python_documentation()
