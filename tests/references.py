"""Every optimizer in a few lines of NumPy, and the table that the tests cross with properties.

A reference is the rule as its paper has it, for the k-th step of one array, in float64: `step(w, g, s, k, **hyper)`
changes w and the state dict s in place. It shares nothing with the library.
"""

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

import sparseopt as so

try:
    import torch
except ImportError:             # wheels are tested without torch
    torch = None


def sgd(w, g, s, k, lr, momentum=0.0, dampening=0.0, nesterov=False):
    s["b"] = g.copy() if k == 1 else momentum * s["b"] + (1 - dampening) * g
    w -= lr * (g + momentum * s["b"] if nesterov else s["b"] if momentum else g)


def adagrad(w, g, s, k, lr=1e-2, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10, square=np.square):
    s["sum"] = (s["sum"] if k > 1 else initial_accumulator_value) + square(g)
    w -= lr / (1 + (k - 1) * lr_decay) * g / (np.sqrt(s["sum"]) + eps)


def adadelta(w, g, s, k, lr=1.0, rho=0.9, eps=1e-6):
    s["v"] = rho * s["v"] + (1 - rho) * g**2
    delta = np.sqrt(s["d"] + eps) / np.sqrt(s["v"] + eps) * g
    s["d"] = rho * s["d"] + (1 - rho) * delta**2
    w -= lr * delta


def rmsprop(w, g, s, k, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False):
    s["v"] = alpha * s["v"] + (1 - alpha) * g**2
    s["mean"] = alpha * s["mean"] + (1 - alpha) * g
    s["b"] = momentum * s["b"] + g / (np.sqrt(np.maximum(s["v"] - centered * s["mean"] ** 2, 0)) + eps)
    w -= lr * s["b"]


def adam(w, g, s, k, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=False, decoupled=0.0, square=np.square):
    s["m"] = betas[0] * s["m"] + (1 - betas[0]) * g
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * square(g)
    s["top"] = np.maximum(s["top"], s["v"]) if amsgrad else s["v"]
    w *= 1 - lr * decoupled
    w -= lr * (s["m"] / (1 - betas[0] ** k)) / (np.sqrt(s["top"] / (1 - betas[1] ** k)) + eps)


def adamax(w, g, s, k, lr=2e-3, betas=(0.9, 0.999), eps=1e-8):
    s["m"] = betas[0] * s["m"] + (1 - betas[0]) * g
    s["u"] = np.maximum(betas[1] * s["u"], np.abs(g) + eps)
    w -= lr / (1 - betas[0] ** k) * s["m"] / s["u"]


def nadam(w, g, s, k, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, momentum_decay=4e-3, decoupled=0.0):
    w *= 1 - lr * decoupled
    mu, following = (betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in (k, k + 1))
    s["product"] = mu * (s["product"] if k > 1 else 1.0)
    s["m"] = betas[0] * s["m"] + (1 - betas[0]) * g
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * g**2
    mean = (1 - mu) * g / (1 - s["product"]) + following * s["m"] / (1 - s["product"] * following)
    w -= lr * mean / (np.sqrt(s["v"] / (1 - betas[1] ** k)) + eps)


def ftrl(w, g, s, k, lr=0.1, beta=1.0, l1=0.0, l2=0.0, decoupled=0.0):
    if k == 1:
        s["rate"] = beta / lr                       # 1 / η
        s["z"] = -w * (s["rate"] + l2) - np.sign(w) * l1
    s["n"] = s["n"] + g**2
    before, s["rate"] = s["rate"], (beta + np.sqrt(s["n"])) / lr
    s["z"] = s["z"] + g + decoupled * w - (s["rate"] - before) * w
    w[...] = np.where(np.abs(s["z"]) <= l1, 0, -(s["z"] - np.sign(s["z"]) * l1) / (s["rate"] + l2))


def lion(w, g, s, k, lr=1e-4, betas=(0.9, 0.99), decoupled=0.0):
    w *= 1 - lr * decoupled
    w -= lr * np.sign(betas[0] * s["m"] + (1 - betas[0]) * g)
    s["m"] = betas[1] * s["m"] + (1 - betas[1]) * g


def mean_square(g):
    return np.mean(g**2, axis=-1, keepdims=True)


@contextlib.contextmanager
def torch_default(dtype):
    """torch keeps NAdam's product in its default dtype, not in the parameter's: with float32 there, 2e-11 is lost."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == np.float64 else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass
class Case:
    """One optimizer with one setting: ours, the NumPy reference, and torch's where torch has it."""

    name: str
    ours: type
    reference: callable
    torch: type | None = None
    hyper: dict = field(default_factory=dict)               # as ours and torch take it
    # For the reference alone: replaces or extends the hyperparameters above; a None removes one.
    reference_hyper: dict = field(default_factory=dict)
    coupled: bool = True                                    # whether weight_decay is added to the gradient

    def __str__(self):
        return self.name

    def run_reference(self, w, gradients, *, weight_decay=0.0, maximize=False):
        """The dense run in float64 on all gradients in turn: the whole array is one row, touched at every step."""
        w, state = np.array(w, dtype=np.float64), defaultdict(float)
        hyper = {name: value for name, value in {**self.hyper, **self.reference_hyper}.items() if value is not None}
        if weight_decay and not self.coupled:
            hyper["decoupled"] = weight_decay
        for k, g in enumerate(gradients, start=1):
            g = -np.asarray(g, dtype=np.float64) if maximize else np.asarray(g, dtype=np.float64)
            self.reference(w, g + weight_decay * w if self.coupled else g, state, k, **hyper)
        return w

    def run_torch(self, w, gradients, dtype, **more):
        """torch's dense run on all gradients in turn."""
        with torch_default(dtype):
            parameter = torch.tensor(np.array(w, dtype=dtype), requires_grad=True)
            optimizer = self.torch([parameter], **{**self.hyper, **more})
            for g in gradients:
                parameter.grad = torch.tensor(np.array(g, dtype=dtype))
                optimizer.step()
        return parameter.detach().numpy().copy()


def peer(name):
    """torch's optimizer of this name, or None without torch."""
    return getattr(torch.optim, name) if torch else None


WITHOUT_REPLAY = set()          # names of optimizers that refuse missed="replay"

CASES = [
    Case("SGD", so.SGD, sgd, peer("SGD"), dict(lr=0.1)),
    Case("SGD momentum", so.SGD, sgd, peer("SGD"), dict(lr=0.1, momentum=0.9, dampening=0.3)),
    Case("SGD nesterov", so.SGD, sgd, peer("SGD"), dict(lr=0.1, momentum=0.9, nesterov=True)),
    Case("Adagrad", so.Adagrad, adagrad, peer("Adagrad"), dict(lr=0.1)),
    Case("Adagrad lr_decay", so.Adagrad, adagrad, peer("Adagrad"),
         dict(lr=0.1, lr_decay=0.2, initial_accumulator_value=0.5, eps=1e-3)),
    Case("RowwiseAdagrad", so.RowwiseAdagrad, adagrad, hyper=dict(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1),
         reference_hyper=dict(square=mean_square)),
    Case("Adadelta", so.Adadelta, adadelta, peer("Adadelta"), dict(lr=0.5, rho=0.8, eps=1e-5)),
    Case("RMSprop", so.RMSprop, rmsprop, peer("RMSprop"), dict(lr=0.01)),
    Case("RMSprop momentum", so.RMSprop, rmsprop, peer("RMSprop"), dict(lr=0.01, momentum=0.8, alpha=0.9)),
    Case("RMSprop centered", so.RMSprop, rmsprop, peer("RMSprop"),
         dict(lr=0.01, centered=True, alpha=0.9, eps=1e-3)),
    Case("RMSprop centered momentum", so.RMSprop, rmsprop, peer("RMSprop"),
         dict(lr=0.01, centered=True, momentum=0.5, alpha=0.9, eps=1e-3)),
    Case("Adam", so.Adam, adam, peer("Adam"), dict(lr=0.01)),
    Case("Adam betas", so.Adam, adam, peer("Adam"), dict(lr=0.01, betas=(0.5, 0.9), eps=1e-3)),
    Case("Adam amsgrad", so.Adam, adam, peer("Adam"), dict(lr=0.01, betas=(0.9, 0.9), amsgrad=True)),
    Case("AdamW", so.AdamW, adam, peer("AdamW"), dict(lr=0.01), coupled=False),
    Case("AdamW amsgrad", so.AdamW, adam, peer("AdamW"), dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
         coupled=False),
    Case("RowwiseAdam", so.RowwiseAdam, adam, hyper=dict(lr=0.01), reference_hyper=dict(square=mean_square)),
    Case("Adamax", so.Adamax, adamax, peer("Adamax"), dict(lr=0.01)),
    Case("NAdam", so.NAdam, nadam, peer("NAdam"), dict(lr=0.01, momentum_decay=0.1)),
    Case("NAdam decoupled", so.NAdam, nadam, peer("NAdam"), dict(lr=0.01, decoupled_weight_decay=True),
         dict(decoupled_weight_decay=None), coupled=False),
    Case("Ftrl", so.Ftrl, ftrl, hyper=dict(lr=0.3, beta=0.5, l1=0.2, l2=0.1), coupled=False),
    Case("Lion", so.Lion, lion, hyper=dict(lr=0.01), coupled=False),
]
