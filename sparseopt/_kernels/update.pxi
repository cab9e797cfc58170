# The effect of one step on one table, prepared by Sweep.prepare.


cdef class Update(Scratch):
    """One table's share of a call. Everything that can fail is done before `run`, which only writes."""
    cdef Sweep sweep
    cdef public RowPlan plan        # the rows to update; None: no row.
    cdef Settings how
    cdef object hyper, columns      # the arrays that `how` points into.
    cdef bint takes_a_step          # False: rows are only brought up to the last step.
    cdef History history            # the table's history after the call; None under missed="skip".
    cdef RowPlan all_rows              # all rows, if they are brought up first because a new history begins; else None.
    cdef object missed              # the Missed that the new history is made for.
    cdef cnp.ndarray table_state         # state of the whole table that gets `value` after the step; or None.
    cdef double value
    cdef Term term                  # the step's effect on rows that miss it.

    def square_sum(self):
        """The sum of squares of the gradient, repeats summed and rows clipped. Threads change no bit."""
        cdef Sweep sweep = self.sweep
        cdef RowPlan plan = self.plan
        plan.check_in_place()
        sums = np.empty(plan.n, dtype=np.float64)
        cdef double* out = <double*>cnp.PyArray_DATA(sums)
        with nogil:
            if sweep.double_:
                square_sums(&sweep.target, &plan.source, &self.how, out, plan.n, <double*>self.rows, self.pad,
                            self.threads)
            else:
                square_sums(&sweep.target, &plan.source, &self.how, out, plan.n, <float*>self.rows, self.pad,
                            self.threads)
        sums.sort()                 # so that the order in which rows are visited changes no bit
        return float(sums.sum())

    def scale(self, double factor):
        """Scale the gradient."""
        self.how.scale *= factor

    def append_to_history(self, History history, matrix=(), double rate=0, double factor=0, double fresh=1):
        """Append the step to a history, with its effect on rows that miss it."""
        history.reserve()
        self.history = history
        self.term = term_of(history, matrix, rate, factor, fresh)

    def set_table_state(self, cnp.ndarray array, double value):
        """Write a value into an array of one float64 after the step."""
        self.table_state, self.value = array, value

    def begin_history(self, RowPlan all_rows, History history, missed):
        """First bring every row up to the end of the old history. Then begin a new one."""
        self.all_rows, self.history, self.missed = all_rows, history, missed

    cdef void run(self):
        cdef Sweep sweep = self.sweep
        cdef Settings catching_up
        if self.all_rows is not None:
            if sweep.last_hyper is not None:
                sweep.set_catching_up(&catching_up)
                sweep.run(self.all_rows, &catching_up, self)
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
        if self.table_state is not None:
            (<double*>cnp.PyArray_DATA(self.table_state))[0] = self.value
