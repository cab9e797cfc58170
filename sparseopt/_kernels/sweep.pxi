# A table, its state and its rule, bound together: what Python sees of the driver.


cdef class Sweep:
    """One table with its state, its rule, its step count and its history."""
    cdef Target target
    cdef readonly bint rising       # whether rows are sorted before a visit: the table is so large that sorting pays.
    cdef bint double_
    cdef list arrays                # the table, its states, its step counts.
    cdef Held held[MOST_STATES + 2]
    cdef str title                  # the table's name in errors.
    cdef int32_t* shared            # one step count for all rows, or NULL.
    cdef public int64_t count       # steps of the table.
    cdef public History history     # steps that rows may have missed; None under missed="skip".
    cdef public object missed       # the Missed that the history was made for.
    cdef public object last_hyper   # hyper-parameters of the last step in the history; None before a step.

    def __init__(self, str rule, table, states, steps, missed=None, bint by_elements=False,
                 str title="the optimizer"):
        """`steps` has a count for each row, or one count (dimension 0) for all rows, or is None.

        `by_elements` declares that the rule is element-wise: the update of an element depends on no other element.
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
        set_distances(t, processor)
        self.rising = n_bytes > processor.sort_bytes

    cdef uintptr_t function(self, str rule, n_states) except 0:
        if rule not in RULES:
            raise ValueError(f"rule {rule!r} is not in rules/registry.pxi")
        taken, rule32, rule64 = RULES[rule]
        if n_states != taken:
            raise ValueError(f"rule {rule!r} takes {taken} states; the optimizer names {n_states}")
        return rule64 if self.double_ else rule32

    cdef int threads(self, RowPlan plan, int wanted):
        cdef Py_ssize_t work = plan.n * (self.target.dim + 8) + plan.source.value_rows * 8
        return wanted if work >= WORTH_THREADS else 1

    def largest(self, RowPlan plan, int num_threads):
        """A bound on the magnitude of a gradient's numbers, repeats summed. Not finite if the gradient is not."""
        return self.bound_of(plan, self.threads(plan, num_threads))

    cdef double bound_of(self, RowPlan plan, int num_threads) except? -1:
        plan.check_in_place()
        if self.double_:
            return bound[double](&plan.source, plan.longest, num_threads, 0)
        return bound[float](&plan.source, plan.longest, num_threads, 0)

    def nonfinite(self, RowPlan plan):
        """A boolean array: which of the touched rows have a NaN or an infinity in their gradient."""
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
        """Raise ValueError if the table or its state has changed its memory, shape or dtype."""
        self.check_held()

    cdef int check_held(self) except -1:
        cdef Py_ssize_t i
        for i in range(len(self.arrays)):
            if not is_held(&self.held[i], <cnp.ndarray>self.arrays[i]):
                say_what_changed(f"the {'state' if i else 'table'} of {self.title}", &self.held[i], self.arrays[i])
        return 0

    def prepare(self, RowPlan plan not None, int num_threads, tuple numbers):
        """The Update that applies the rule to every touched row.

        `numbers` are hyper, the columns, first, count, scale and decay of `Settings`; then all or none of clip_value,
        max_row_norm, max_norm and slope.
        """
        cdef Update update = self.new_update(plan, num_threads)
        cdef Settings* how = &update.how
        cdef cnp.ndarray hyper = <cnp.ndarray?>numbers[0], column
        cdef tuple columns = <tuple?>numbers[1]
        cdef int j
        if len(columns) > MOST_COLUMNS:
            raise ValueError(f"the rule has {len(columns)} numbers that depend on the step count; it may have "
                             f"{MOST_COLUMNS}")
        update.hyper, update.columns, update.takes_a_step = hyper, columns, True
        how.hyper = cnp.PyArray_DATA(hyper)
        how.n_columns = len(columns)
        for j in range(how.n_columns):
            column = <cnp.ndarray?>columns[j]
            how.column[j] = cnp.PyArray_DATA(column)
            how.n_counts[j] = cnp.PyArray_DIM(column, 0)
        how.first, how.count, how.scale, how.decay = numbers[2], numbers[3], numbers[4], numbers[5]
        how.clip_value = how.max_row_norm = how.max_norm = INFINITY
        how.slope = 0
        if len(numbers) > 6:
            how.clip_value, how.max_row_norm, how.max_norm, how.slope = numbers[6], numbers[7], numbers[8], numbers[9]
        return update

    def prepare_catching_up(self, RowPlan plan, int num_threads):
        """The Update that brings rows up to the last step of their history."""
        cdef Update update = self.new_update(plan, num_threads)
        self.set_catching_up(&update.how)
        update.hyper = self.last_hyper
        update.history = self.history
        return update

    def prepare_nothing(self, int num_threads):
        """An Update of no row. `Update.begin_history` may make it start a new history."""
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
        how.n_columns = 0
        if self.last_hyper is None:             # before the first step no row has missed any
            how.hyper = NULL
        else:
            how.hyper = cnp.PyArray_DATA(<cnp.ndarray>self.last_hyper)
        how.past = &self.history.past
        how.count = self.history.past.now

    @staticmethod
    def not_finite(list updates):
        """The positions of the updates whose gradients may have a NaN or an infinity: their bound is not finite."""
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
        """Write what was prepared, for all tables, and count the step. No Python runs from the first write to the last.

        Raises ValueError before the first write if a table or a gradient has changed its memory.
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
