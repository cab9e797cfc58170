# What one step does to one table, prepared by Sweep.prepare.


cdef class Update(Scratch):
    """One table's share of a call.  All that can fail is done when this is made; `run` only writes."""
    cdef Sweep sweep
    cdef public RowPlan plan        # None: no row is to be updated
    cdef Settings how
    cdef object hyper, by_count     # what `how` points into
    cdef bint takes_a_step          # or else rows are only brought up
    cdef History history            # that the table has from here on; None where nothing is replayed
    cdef RowPlan whole              # all rows, to be brought up first, where another history begins; else None
    cdef object missed              # what that history is made for
    cdef cnp.ndarray number         # of the whole table, that has this value after the step; or None
    cdef double value
    cdef Term term                  # what the step leaves to rows that miss it

    def square_sum(self):
        """The sum of squares of the gradient, repeats summed and rows clipped: the same bits for any number of threads."""
        cdef Sweep sweep = self.sweep
        cdef RowPlan plan = self.plan
        plan.check_in_place()
        sums = np.empty(plan.n, dtype=np.float64)
        cdef double* out = <double*>cnp.PyArray_DATA(sums)
        with nogil:
            if sweep.double_:
                square_sums(&sweep.target, &plan.source, &self.how, out, plan.n, <double*>self.rows, self.pad, self.threads)
            else:
                square_sums(&sweep.target, &plan.source, &self.how, out, plan.n, <float*>self.rows, self.pad, self.threads)
        sums.sort()                 # so that it matters to no bit in which order rows are visited
        return float(sums.sum())

    def scale(self, double factor):
        """Scale the gradient."""
        self.how.scale *= factor

    def replay(self, History history, matrix=(), double rate=0, double factor=0, double fresh=1):
        """Let the step be the next one in a history, and leave its term to the rows that miss it."""
        history.reserve()
        self.history = history
        self.term = term_of(history, matrix, rate, factor, fresh)

    def set_number(self, cnp.ndarray array, double value):
        """Let an array of one float64 have this value after the step."""
        self.number, self.value = array, value

    def begin(self, RowPlan whole, History history, missed):
        """Before all, bring every row up to the end of the history so far, and let another one begin."""
        self.whole, self.history, self.missed = whole, history, missed

    cdef void run(self):
        cdef Sweep sweep = self.sweep
        cdef Settings catching_up
        if self.whole is not None:
            if sweep.last_hyper is not None:
                sweep.set_catching_up(&catching_up)
                sweep.run(self.whole, &catching_up, self)
            sweep.history, sweep.missed, sweep.last_hyper = self.history, self.missed, None
        if self.plan is None:
            return
        self.how.past = &self.history.past if self.history is not None else NULL
        if self.takes_a_step or self.hyper is not None:
            sweep.run(self.plan, &self.how, self)
        if not self.takes_a_step:
            return
        if self.history is not None:
            append_step(&self.history.past, &self.term)
            sweep.last_hyper = self.hyper
        if sweep.count < INT32_MAX:
            sweep.count += 1
        if sweep.shared:
            sweep.shared[0] = <int32_t>sweep.count
        if self.number is not None:
            (<double*>cnp.PyArray_DATA(self.number))[0] = self.value
