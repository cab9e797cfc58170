# A table, its state and its rule, bound together: what Python sees of the driver.


cdef class Sweep:
    """One table with its state and its rule, bound once, and what the steps so far have left: counts and history."""
    cdef Target target
    cdef readonly bint rising       # its rows are better visited in rising order, even if their values do not stand in it
    cdef bint double_
    cdef list arrays
    cdef public int64_t count       # steps of the table
    cdef public History history     # of the steps that rows may have missed; None where nothing is replayed
    cdef public object missed       # what the history was made for
    cdef public object last_hyper   # the hyper-parameters of the last step in the history; None before one
    cdef int32_t* shared            # the one step count of all rows, or NULL
    cdef Held held[MOST_STATES + 2]
    cdef str title                  # of the table, for errors

    def __init__(self, str rule, table, states, steps, missed=None, bint by_elements=False,
                 str title="the optimizer"):
        """`steps` counts for each row, or of dimension 0 for all rows, or is None.

        `by_elements` says that the rule knows no rows: what it does to an element depends on that alone.
        """
        self.shared = NULL
        if steps is not None and steps.ndim == 0:
            self.shared = <int32_t*>cnp.PyArray_DATA(steps)
        self.title = title
        self.arrays = [array for array in (table, *states, steps) if array is not None]
        for i, array in enumerate(self.arrays):
            hold(&self.held[i], array)
        self.double_ = table.dtype == np.float64
        cdef Target* t = &self.target
        t.rule = self.function(rule, len(states))
        t.missed = self.function(missed, len(states)) if missed else 0
        t.table = <char*>cnp.PyArray_DATA(table)
        t.row_bytes = table.strides[0] if table.size else 0
        t.dim = table.shape[1] if table.ndim == 2 else 1
        t.n_states = len(states)
        t.by_elements = by_elements
        for i, state in enumerate(states):
            t.state[i] = <char*>cnp.PyArray_DATA(state)
            t.state_bytes[i] = state.strides[0] if state.size else 0
        t.n_long = sum(state.ndim == table.ndim for state in states)
        t.steps = <int32_t*>cnp.PyArray_DATA(steps) if steps is not None and not self.shared else NULL
        n_bytes = sum(array.nbytes for array in self.arrays)
        set_distances(t, processor, n_bytes)
        self.rising = n_bytes > processor.reach

    cdef uintptr_t function(self, str rule, n_states) except 0:
        taken, rule32, rule64 = RULES[rule]
        if n_states != taken:
            raise ValueError(f"rule {rule!r} takes {taken} states; the optimizer names {n_states}")
        return rule64 if self.double_ else rule32

    cdef int threads(self, RowPlan plan, int wanted):
        cdef Py_ssize_t work = plan.n * (self.target.dim + 8) + plan.source.value_rows * 8
        return wanted if work >= WORTH_THREADS else 1

    def largest(self, RowPlan plan, int num_threads):
        """A bound on every number of a gradient: finite only if all of them are, repeats summed and rounded."""
        return self.bound_of(plan, self.threads(plan, num_threads))

    cdef double bound_of(self, RowPlan plan, int num_threads) except? -1:
        cdef Source* s = &plan.source
        cdef double value, weight = 1
        plan.check_in_place()
        if self.double_:
            value = largest(<const double*>s.values, s.stride, s.value_rows, s.value_columns, num_threads)
            if s.weights:
                weight = largest(<const double*>s.weights, 1, s.n_weights, 1, num_threads)
            return 2 * value * weight * plan.longest
        value = largest(<const float*>s.values, s.stride, s.value_rows, s.value_columns, num_threads)
        if s.weights:
            weight = largest(<const float*>s.weights, 1, s.n_weights, 1, num_threads)
        return <double><float>(2 * value * weight * plan.longest)

    def nonfinite(self, RowPlan plan):
        """Which of the touched rows have a NaN or an infinity in their gradient: a boolean array."""
        plan.check_in_place()
        marks = np.empty(plan.n, dtype=np.bool_)
        cdef uint8_t* m = <uint8_t*>cnp.PyArray_DATA(marks)
        cdef Scratch scratch = scratch_of(self.target.dim, 8 if self.double_ else 4, 1)
        with nogil:
            if self.double_:
                mark_nonfinite(&self.target, &plan.source, m, plan.n, <double*>scratch.rows)
            else:
                mark_nonfinite(&self.target, &plan.source, m, plan.n, <float*>scratch.rows)
        return marks

    def gradient(self, RowPlan plan, Py_ssize_t i):
        """The gradient of the i-th touched row, repeats summed, as a list."""
        plan.check_in_place()
        cdef Scratch scratch = scratch_of(self.target.dim, 8 if self.double_ else 4, 1)
        cdef const double* g64
        cdef const float* g32
        if self.double_:
            g64 = gather(&self.target, &plan.source, i, <double*>scratch.rows)
            return [g64[j] for j in range(self.target.dim)]
        g32 = gather(&self.target, &plan.source, i, <float*>scratch.rows)
        return [g32[j] for j in range(self.target.dim)]

    def check_in_place(self):
        """Raise ValueError if the table or its state is no longer where and what it was when this was made."""
        self.check_held()

    cdef int check_held(self) except -1:
        cdef Py_ssize_t i
        for i in range(len(self.arrays)):
            if not is_held(&self.held[i], <cnp.ndarray>self.arrays[i]):
                self.say_what_changed(i)
        return 0

    cdef say_what_changed(self, Py_ssize_t i):
        array, held = self.arrays[i], self.held[i]
        what = f"the {'state' if i else 'table'} of {self.title}"
        shape = tuple([held.shape[axis] for axis in range(held.ndim)])
        if array.shape != shape:
            raise ValueError(f"{what} has changed its shape from {shape} to {array.shape}")
        if not array.flags.writeable:
            raise ValueError(f"{what} has become read-only; it is updated in place")
        raise ValueError(f"{what} has changed its memory, dtype or strides since the optimizer was made; it must stay where it is")

    def prepare(self, RowPlan plan not None, int num_threads, tuple numbers):
        """The Update that applies the rule to every touched row.

        `numbers` are hyper-parameters, what depends on the count alone, the count of rows that keep none of their own, scale
        and decay; then, or none of these, clip_value, max_row_norm, max_norm and slope.
        """
        cdef Update update = self.new_update(plan, num_threads)
        cdef Settings* how = &update.how
        cdef cnp.ndarray hyper = <cnp.ndarray?>numbers[0], by_count = <cnp.ndarray?>numbers[1]
        update.hyper, update.by_count, update.takes_a_step = hyper, by_count, True
        how.hyper = cnp.PyArray_DATA(hyper)
        how.by_count = cnp.PyArray_DATA(by_count)
        how.n_counts = cnp.PyArray_DIM(by_count, 0)
        how.n_by_count = cnp.PyArray_DIM(by_count, 1)
        how.count, how.scale, how.decay = numbers[2], numbers[3], numbers[4]
        how.clip_value = how.max_row_norm = how.max_norm = INFINITY
        how.slope = 0
        if len(numbers) > 5:
            how.clip_value, how.max_row_norm, how.max_norm, how.slope = numbers[5], numbers[6], numbers[7], numbers[8]
        return update

    def prepare_catching_up(self, RowPlan plan, int num_threads):
        """The Update that brings rows up to the last step of their history."""
        cdef Update update = self.new_update(plan, num_threads)
        self.set_catching_up(&update.how)
        update.hyper = self.last_hyper
        update.history = self.history
        return update

    def prepare_nothing(self, int num_threads):
        """An Update of no row, for what is to come before it."""
        return self.new_update(None, num_threads)

    cdef Update new_update(self, RowPlan plan, int num_threads):
        cdef Update update = Update.__new__(Update)
        update.sweep, update.plan = self, plan
        update.allocate(self.target.dim, 8 if self.double_ else 4,
                        self.threads(plan, num_threads) if plan is not None else num_threads)
        return update

    cdef void set_catching_up(self, Settings* how):
        how.scale = 1
        how.decay = 0
        how.clip_value = how.max_row_norm = how.max_norm = INFINITY
        how.slope = 0
        how.n_counts = how.n_by_count = 1
        if self.last_hyper is None:             # before the first step no row has missed any
            how.hyper = how.by_count = NULL
        else:
            how.hyper = how.by_count = cnp.PyArray_DATA(<cnp.ndarray>self.last_hyper)
        how.past = &self.history.past
        how.count = self.history.past.now

    @staticmethod
    def not_finite(list updates):
        """The positions of the updates whose gradients may have a NaN or an infinity."""
        cdef Update update
        cdef list found = []
        cdef Py_ssize_t i
        for i in range(len(updates)):
            update = <Update?>updates[i]
            if not isfinite(update.sweep.bound_of(update.plan, update.threads)):
                found.append(i)
        return found

    @staticmethod
    def apply(list updates, Counts counts=None, Py_ssize_t left_out=0):
        """Do what was prepared, for all tables, and count: no Python runs from the first write to the last.

        Raises ValueError if a table or a gradient is no longer where it was; nothing has been written then.
        """
        cdef Update update
        for update in updates:
            update.sweep.check_held()
            if update.plan is not None:
                update.plan.check_in_place()
        for update in updates:
            update.run()
        if counts is not None:
            counts.steps += 1
            counts.nonfinite_rows += left_out

    cdef void run(self, RowPlan plan, Settings* how, Scratch scratch):
        if how.past and 0 < how.past.resolvent.window < 2 * plan.n:
            make_ready(<Past*>how.past)
        with nogil:
            if self.double_:
                update_all(&self.target, &plan.source, how, plan.n, <double*>scratch.rows, scratch.pad, scratch.threads)
            else:
                update_all(&self.target, &plan.source, how, plan.n, <float*>scratch.rows, scratch.pad, scratch.threads)
