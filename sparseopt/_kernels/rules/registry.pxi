# Every rule by its name.  A new rule: its file here, and its entry in RULES: the number of its states, and its two versions.

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
    "sgd": (0, <uintptr_t>&sgd[float], <uintptr_t>&sgd[double]),
    "momentum": (1, <uintptr_t>&momentum[float], <uintptr_t>&momentum[double]),
    "nesterov": (1, <uintptr_t>&nesterov[float], <uintptr_t>&nesterov[double]),
    "adagrad": (1, <uintptr_t>&adagrad[float], <uintptr_t>&adagrad[double]),
    "rowwise_adagrad": (1, <uintptr_t>&rowwise_adagrad[float], <uintptr_t>&rowwise_adagrad[double]),
    "adadelta": (2, <uintptr_t>&adadelta[float], <uintptr_t>&adadelta[double]),
    "rmsprop": (1, <uintptr_t>&rmsprop[float], <uintptr_t>&rmsprop[double]),
    "rmsprop_momentum": (2, <uintptr_t>&rmsprop_momentum[float], <uintptr_t>&rmsprop_momentum[double]),
    "rmsprop_centered": (2, <uintptr_t>&rmsprop_centered[float], <uintptr_t>&rmsprop_centered[double]),
    "rmsprop_centered_momentum": (3, <uintptr_t>&rmsprop_centered_momentum[float],
                                  <uintptr_t>&rmsprop_centered_momentum[double]),
    "adam": (2, <uintptr_t>&adam[float], <uintptr_t>&adam[double]),
    "amsgrad": (3, <uintptr_t>&amsgrad[float], <uintptr_t>&amsgrad[double]),
    "rowwise_adam": (2, <uintptr_t>&rowwise_adam[float], <uintptr_t>&rowwise_adam[double]),
    "adamax": (2, <uintptr_t>&adamax[float], <uintptr_t>&adamax[double]),
    "nadam": (2, <uintptr_t>&nadam[float], <uintptr_t>&nadam[double]),
    "nadam_by_row": (3, <uintptr_t>&nadam_by_row[float], <uintptr_t>&nadam_by_row[double]),
    "ftrl": (2, <uintptr_t>&ftrl[float], <uintptr_t>&ftrl[double]),
    "lion": (1, <uintptr_t>&lion[float], <uintptr_t>&lion[double]),
    "sgd_missed": (0, <uintptr_t>&sgd_missed[float], <uintptr_t>&sgd_missed[double]),
    "momentum_missed": (1, <uintptr_t>&momentum_missed[float], <uintptr_t>&momentum_missed[double]),
    "adadelta_missed": (2, <uintptr_t>&adadelta_missed[float], <uintptr_t>&adadelta_missed[double]),
    "rmsprop_missed": (1, <uintptr_t>&rmsprop_missed[float], <uintptr_t>&rmsprop_missed[double]),
    "rmsprop_momentum_missed": (2, <uintptr_t>&rmsprop_momentum_missed[float], <uintptr_t>&rmsprop_momentum_missed[double]),
    "rmsprop_centered_missed": (2, <uintptr_t>&rmsprop_centered_missed[float], <uintptr_t>&rmsprop_centered_missed[double]),
    "rmsprop_centered_momentum_missed": (3, <uintptr_t>&rmsprop_centered_momentum_missed[float],
                                         <uintptr_t>&rmsprop_centered_momentum_missed[double]),
    "adam_missed": (2, <uintptr_t>&adam_missed[float], <uintptr_t>&adam_missed[double]),
    "amsgrad_missed": (3, <uintptr_t>&amsgrad_missed[float], <uintptr_t>&amsgrad_missed[double]),
    "adamax_missed": (2, <uintptr_t>&adamax_missed[float], <uintptr_t>&adamax_missed[double]),
    "rowwise_adam_missed": (2, <uintptr_t>&rowwise_adam_missed[float], <uintptr_t>&rowwise_adam_missed[double]),
    "lion_missed": (1, <uintptr_t>&lion_missed[float], <uintptr_t>&lion_missed[double]),
}
