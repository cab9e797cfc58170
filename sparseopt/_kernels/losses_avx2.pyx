# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
include "losses.pxi"
