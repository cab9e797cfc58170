"""What scikit-learn's tools ask of an estimator. scikit-learn is imported only by methods that scikit-learn calls."""

import inspect
import warnings
from typing import Any

import numpy as np

from .._text import shown
from .._typing import Self

# scikit-learn's own word for a request that stays as it is.
_UNCHANGED = "$UNCHANGED$"
Request = bool | str | None
_NAMES_DIFFER = "The feature names should match those that were passed during fit.\n"
_LISTED = 5                     # so many names are listed at most


class Routed:
    """Metadata routing: a router such as GridSearchCV passes `sample_weight` to the methods that request it."""

    def get_metadata_routing(self) -> Any:
        """Return the requests of each method. Only scikit-learn calls this method."""
        from sklearn.utils.metadata_routing import MetadataRequest, get_routing_for_object

        if hasattr(self, "_metadata_request"):
            return get_routing_for_object(self._metadata_request)
        requests = MetadataRequest(owner=type(self).__name__)
        for method in ("fit", "partial_fit", "score"):
            for name in inspect.signature(getattr(self, method)).parameters:
                if name not in ("X", "y"):
                    getattr(requests, method).add_request(param=name, alias=None)
        return requests

    def set_fit_request(self, *, sample_weight: Request = _UNCHANGED, callback: Request = _UNCHANGED) -> Self:
        """Say which metadata scikit-learn's routers pass to `fit`.

        Parameters
        ----------
        sample_weight, callback : bool, None or str
            True: passed if a router gets this argument. False: never passed. None: a router that gets this argument
            raises an error. A str: the router's name of this argument. Without a value, the request stays as it is.

        Returns
        -------
        self

        Raises
        ------
        ImportError, RuntimeError
            If scikit-learn is not installed, or `sklearn.set_config(enable_metadata_routing=True)` was not called.
        """
        return self._set_requests("fit", sample_weight=sample_weight, callback=callback)

    def set_partial_fit_request(self, *, sample_weight: Request = _UNCHANGED, callback: Request = _UNCHANGED,
                                **classes: Request) -> Self:
        """Say which metadata scikit-learn's routers pass to `partial_fit`.

        Parameters
        ----------
        sample_weight, callback, **classes : bool, None or str
            As in `set_fit_request`. Only a classifier has `classes`.

        Returns
        -------
        self

        Raises
        ------
        ImportError, RuntimeError, TypeError
            As in `set_fit_request`, and if `partial_fit` has no such argument.
        """
        return self._set_requests("partial_fit", sample_weight=sample_weight, callback=callback, **classes)

    def set_score_request(self, *, sample_weight: Request = _UNCHANGED) -> Self:
        """Say which metadata scikit-learn's routers pass to `score`.

        Parameters
        ----------
        sample_weight : bool, None or str
            As in `set_fit_request`.

        Returns
        -------
        self

        Raises
        ------
        ImportError, RuntimeError
            As in `set_fit_request`.
        """
        return self._set_requests("score", sample_weight=sample_weight)

    def _set_requests(self, method, **asked):
        from sklearn import get_config

        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError("This method is only available when metadata routing is enabled. "
                               "sklearn.set_config(enable_metadata_routing=True) enables it")
        requests = self.get_metadata_routing()
        allowed = inspect.signature(getattr(self, method)).parameters
        for name, request in asked.items():
            if name not in allowed:
                raise TypeError(f"set_{method}_request() got an unexpected keyword argument {shown(name)}")
            if request != _UNCHANGED:
                getattr(requests, method).add_request(param=name, alias=request)
        self._metadata_request = requests
        return self


def feature_names(X):
    """Return the names of the columns of a data frame, or None for an X without names."""
    named = "column_names" if hasattr(type(X), "column_names") else "columns"         # pyarrow, or pandas and polars
    names = getattr(X, named, None)
    if names is None or not len(names):
        return None
    texts = [isinstance(name, str) for name in names]
    if all(texts):
        return np.array(list(names), dtype=object)
    if any(texts):
        kinds = sorted({type(name).__name__ for name in names})
        raise TypeError(f"X has columns whose names are of the types {kinds}. Feature names are only supported if all "
                        "input features have string names. X.columns = X.columns.astype(str) makes texts of all names")
    return None


def check_feature_names(model, names):
    """Raise ValueError if the names of an X are not those of the training. Warn if one of the two has no names."""
    known = getattr(model, "feature_names_in_", None)
    kind = type(model).__name__
    if known is None and names is not None:
        warnings.warn(f"X has feature names, but {kind} was fitted without feature names", UserWarning, stacklevel=4)
    elif known is not None and names is None:
        warnings.warn(f"X does not have valid feature names, but {kind} was fitted with feature names", UserWarning,
                      stacklevel=4)
    elif known is not None and not np.array_equal(known, names):
        message = _NAMES_DIFFER
        unseen, missing = sorted(set(names) - set(known)), sorted(set(known) - set(names))
        for wrong, said in ((unseen, "Feature names unseen at fit time"),
                            (missing, "Feature names seen at fit time, yet now missing")):
            if wrong:
                shortened = [shown(name)[1:-1] for name in wrong[:_LISTED]] + ["..."] * (len(wrong) > _LISTED)
                message += f"{said}:\n" + "".join(f"- {name}\n" for name in shortened)
        if not unseen and not missing:
            message += "Feature names must be in the same order as they were in fit.\n"
        raise ValueError(message)
