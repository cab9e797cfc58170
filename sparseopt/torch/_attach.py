"""Hooks on modules that bring rows up before they are read, under missed="replay".

A hook keeps the optimizer: a function may train a model with an optimizer of its own and return the model, whose rows
still have steps to catch up. Copies of a module have hooks that do nothing, because the optimizer does not update the
parameters of a copy.
"""

import torch

_LOOK_UPS = torch.nn.Embedding, torch.nn.EmbeddingBag


def attach(optimizer, modules, parameters, attached):
    """Put hooks on modules and their parts. Return the parameters of the optimizer that they have.

    `attached` has the modules with hooks of this optimizer already, and gets the new ones.
    """
    for module in modules:
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"modules has a {type(module).__name__}; it must have modules of torch.nn")
    found = {one for module in modules for one in module.parameters() if one in parameters}
    if not found:
        raise ValueError("no module has a parameter of this optimizer")
    for module in modules:
        for part in module.modules():
            if part not in attached and any(one in parameters for one in part.parameters()):
                attached.add(part)
                part.register_forward_pre_hook(_BeforeForward(optimizer), with_kwargs=True, prepend=True)
                part.register_state_dict_pre_hook(_BeforeAccess(optimizer))
                part.register_load_state_dict_pre_hook(_BeforeAccess(optimizer))
    return found


class _Hook:
    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __reduce__(self):
        return _Nothing, ()


class _Nothing:
    def __call__(self, *args, **kwargs):
        return None


class _BeforeForward(_Hook):
    @torch._disable_dynamo
    def __call__(self, module, args, kwargs):
        if not module.training:         # once everything is brought up, later calls find nothing to do
            self.optimizer.catch_up()
            return
        rows = _rows(module, args, kwargs)
        for one in module.parameters(recurse=False):
            if self.optimizer.replays(one):
                self.optimizer.catch_up(one, rows)


class _BeforeAccess(_Hook):
    def __call__(self, module, *args):
        for one in module.parameters(recurse=False):
            if self.optimizer.replays(one):
                self.optimizer.catch_up(one)


def _rows(module, args, kwargs):
    """Return the rows that a forward reads; None is all rows."""
    rows = args[0] if args else kwargs.get("input")
    integers = isinstance(rows, torch.Tensor) and not rows.is_floating_point() and not rows.is_complex()
    return rows if isinstance(module, _LOOK_UPS) and integers else None
