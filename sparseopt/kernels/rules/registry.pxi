# Every rule by its name.  A new rule: its file here, and its entry in RULES.

from libc.stdint cimport uintptr_t

include "arithmetic.pxi"
include "sgd.pxi"
include "adagrad.pxi"
include "adadelta.pxi"
include "rmsprop.pxi"
include "adam.pxi"
include "adamax.pxi"
include "nadam.pxi"
include "ftrl.pxi"
include "lion.pxi"

RULES = {
    "sgd": (<uintptr_t>&sgd[float], <uintptr_t>&sgd[double]),
    "momentum": (<uintptr_t>&momentum[float], <uintptr_t>&momentum[double]),
    "nesterov": (<uintptr_t>&nesterov[float], <uintptr_t>&nesterov[double]),
    "adagrad": (<uintptr_t>&adagrad[float], <uintptr_t>&adagrad[double]),
    "rowwise_adagrad": (<uintptr_t>&rowwise_adagrad[float], <uintptr_t>&rowwise_adagrad[double]),
    "adadelta": (<uintptr_t>&adadelta[float], <uintptr_t>&adadelta[double]),
    "rmsprop": (<uintptr_t>&rmsprop[float], <uintptr_t>&rmsprop[double]),
    "rmsprop_momentum": (<uintptr_t>&rmsprop_momentum[float], <uintptr_t>&rmsprop_momentum[double]),
    "rmsprop_centered": (<uintptr_t>&rmsprop_centered[float], <uintptr_t>&rmsprop_centered[double]),
    "rmsprop_centered_momentum": (<uintptr_t>&rmsprop_centered_momentum[float],
                                  <uintptr_t>&rmsprop_centered_momentum[double]),
    "adam": (<uintptr_t>&adam[float], <uintptr_t>&adam[double]),
    "amsgrad": (<uintptr_t>&amsgrad[float], <uintptr_t>&amsgrad[double]),
    "rowwise_adam": (<uintptr_t>&rowwise_adam[float], <uintptr_t>&rowwise_adam[double]),
    "adamax": (<uintptr_t>&adamax[float], <uintptr_t>&adamax[double]),
    "nadam": (<uintptr_t>&nadam[float], <uintptr_t>&nadam[double]),
    "ftrl": (<uintptr_t>&ftrl[float], <uintptr_t>&ftrl[double]),
    "lion": (<uintptr_t>&lion[float], <uintptr_t>&lion[double]),
}
