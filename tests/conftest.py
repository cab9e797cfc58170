"""The number of random examples of a property that sets none itself; HYPOTHESIS_PROFILE=thorough takes many more."""

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=300, deadline=None)
settings.register_profile("thorough", max_examples=20_000, deadline=None)
settings.register_profile("stateful", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
