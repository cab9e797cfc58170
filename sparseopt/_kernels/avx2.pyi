from .baseline import *  # noqa: F403
