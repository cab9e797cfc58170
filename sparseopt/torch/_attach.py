"""Hooks on modules that bring rows up before they are read, under missed="replay".

A hook keeps the optimizer alive only while rows have steps to catch up: a program may drop the optimizer after
training and then read the weights. Copies of a module have hooks that do nothing, because the optimizer does not update
the parameters of a copy.
"""

import weakref

import torch

_LOOK_UPS = torch.nn.Embedding.forward, torch.nn.EmbeddingBag.forward


class Link:
    """The way from the hooks of modules to their optimizer."""

    def __init__(self, optimizer):
        self.optimizer = weakref.ref(optimizer)
        self.held = None                # the optimizer, while rows have steps to catch up

    def __call__(self):
        """Return the optimizer, or None if it is gone."""
        return self.optimizer()


def attach(link, modules, parameters, attached):
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
            _finish_earlier(part, link())
            if part not in attached and any(one in parameters for one in part.parameters()):
                # A look-up's hook comes after those that change its input, another's before those that read weights.
                part.register_forward_pre_hook(_BeforeForward(link), with_kwargs=True, prepend=not _looks_up(part))
                part.register_state_dict_pre_hook(_BeforeAccess(link))
                part.register_load_state_dict_pre_hook(_BeforeAccess(link))
                attached.add(part)
    return found


def _finish_earlier(module, optimizer):
    """Bring up what other optimizers have left: their user, who goes on with a new one, may have dropped them."""
    for hook in list(module._forward_pre_hooks.values()):
        other = hook.optimizer() if isinstance(hook, _BeforeForward) else None
        if other is not None and other is not optimizer:
            other.catch_up()


class _Hook:
    def __init__(self, link):
        self.optimizer = link

    def __reduce__(self):
        return _Nothing, ()


class _Nothing:
    def __call__(self, *args, **kwargs):
        return None


class _BeforeForward(_Hook):
    @torch._disable_dynamo
    def __call__(self, module, args, kwargs):
        optimizer = self.optimizer()
        if optimizer is None:
            return
        if not module.training:         # once everything is brought up, later calls find nothing to do
            optimizer.catch_up()
            return
        rows = _rows(module, args, kwargs)
        for one in module.parameters(recurse=False):
            if optimizer.is_behind(one):
                optimizer.catch_up(one, rows)


class _BeforeAccess(_Hook):
    def __call__(self, module, *args):
        optimizer = self.optimizer()
        if optimizer is not None:
            for one in module.parameters(recurse=False):
                if optimizer.is_behind(one):
                    optimizer.catch_up(one)


def _looks_up(module):
    """Return whether the input of a forward has the row numbers that it reads; a subclass may compute others."""
    return getattr(module.forward, "__func__", None) in _LOOK_UPS


def _rows(module, args, kwargs):
    """Return the rows that a forward reads; None is all rows."""
    rows = args[0] if args else kwargs.get("input")
    integers = (isinstance(rows, torch.Tensor) and not rows.is_nested and not rows.is_floating_point()
                and not rows.is_complex())
    return rows if _looks_up(module) and integers else None
