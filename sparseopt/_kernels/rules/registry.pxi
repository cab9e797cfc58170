# Registers every rule by name. A new rule needs a file in this folder, an `include` and a line below.
# The compiler checks the number of states.

include "sgd.pxi"
include "adagrad.pxi"
include "adadelta.pxi"
include "rmsprop.pxi"
include "adam.pxi"
include "adamax.pxi"
include "nadam.pxi"
include "ftrl.pxi"
include "lion.pxi"

rule0("sgd", sgd[float], sgd[double])
rule1("momentum", momentum[float], momentum[double])
rule1("nesterov", nesterov[float], nesterov[double])
rule1("adagrad", adagrad[float], adagrad[double])
rule1("rowwise_adagrad", rowwise_adagrad[float], rowwise_adagrad[double])
rule2("adadelta", adadelta[float], adadelta[double])
rule1("rmsprop", rmsprop[float], rmsprop[double])
rule2("rmsprop_momentum", rmsprop_momentum[float], rmsprop_momentum[double])
rule2("rmsprop_centered", rmsprop_centered[float], rmsprop_centered[double])
rule3("rmsprop_centered_momentum", rmsprop_centered_momentum[float], rmsprop_centered_momentum[double])
rule2("adam", adam[float], adam[double])
rule3("amsgrad", amsgrad[float], amsgrad[double])
rule2("rowwise_adam", rowwise_adam[float], rowwise_adam[double])
rule2("adamax", adamax[float], adamax[double])
rule2("nadam", nadam[float], nadam[double])
rule3("nadam_by_row", nadam_by_row[float], nadam_by_row[double])
rule2("ftrl", ftrl[float], ftrl[double])
rule1("lion", lion[float], lion[double])
rule0("sgd_missed", sgd_missed[float], sgd_missed[double])
rule1("momentum_missed", momentum_missed[float], momentum_missed[double])
rule2("adadelta_missed", adadelta_missed[float], adadelta_missed[double])
rule1("rmsprop_missed", rmsprop_missed[float], rmsprop_missed[double])
rule2("rmsprop_momentum_missed", rmsprop_momentum_missed[float], rmsprop_momentum_missed[double])
rule2("rmsprop_centered_missed", rmsprop_centered_missed[float], rmsprop_centered_missed[double])
rule3("rmsprop_centered_momentum_missed", rmsprop_centered_momentum_missed[float],
      rmsprop_centered_momentum_missed[double])
rule2("adam_missed", adam_missed[float], adam_missed[double])
rule3("amsgrad_missed", amsgrad_missed[float], amsgrad_missed[double])
rule2("adamax_missed", adamax_missed[float], adamax_missed[double])
rule2("rowwise_adam_missed", rowwise_adam_missed[float], rowwise_adam_missed[double])
rule1("lion_missed", lion_missed[float], lion_missed[double])
