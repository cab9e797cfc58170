from .losses_baseline import *  # noqa: F403
