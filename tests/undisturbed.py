"""Kill and interrupt training a thousand times each: the result must have the bits of a run that nothing disturbed.

    python tests/undisturbed.py [--kills N] [--interrupts N] [--missed skip|replay] [--seed N]

A course is a loop of catching up, stepping and saving; all in it follows from its seed. Kills (SIGKILL) come at any
moment of loading, stepping or saving; the next life goes on from the checkpoint. Interrupts (KeyboardInterrupt by a
timer) come at any moment of one call of the library; the loop catches each, checks, and goes on with its optimizer.

A failure is printed with the seed of its course. The moments of kills and interrupts depend on the machine too, so that
a seed repeats the course, not the moment. Needs the extra `checkpoint`, and Linux.
"""

import argparse
import copy
import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy  # noqa: F401  here, so that a forked life need not
import scipy.sparse as sp

import sparseopt as so

RULES = {
    "Adam": (so.Adam, {"lr": so.schedules.InverseTime(0.02, decay=0.1)}, "betas", [(0.9, 0.999), (0.9, 0.99)]),
    "AdamW": (so.AdamW, {"lr": 0.02}, "weight_decay", [0.1, 0.05]),
    "SGD": (so.SGD, {"lr": 0.05, "momentum": 0.9}, "momentum", [0.9, 0.8]),
}
SIZES = {"small": (60, 40, 25), "large": (40_000, 10_000, 4000)}       # rows of the two tables, and looked up in a step
SAVED_EVERY = 4                                                         # steps
PACKAGE = str(Path(so.__file__).parent)


@dataclass(frozen=True)
class Course:
    """A training run; what it does at step k follows from this, k and the tables alone."""

    rule: str
    missed: str
    size: str
    seed: int
    num_threads: int = 1
    steps: int = 40

    def begin(self):
        cls, hyper, _, _ = RULES[self.rule]
        users, items, _ = SIZES[self.size]
        tables = {"user": so.normal((users, 16), np.float32, seed=self.seed),
                  "item": so.normal((items, 12), np.float64, seed=self.seed)}
        return cls(tables, **hyper, missed=self.missed, num_threads=self.num_threads, nonfinite="skip",
                   max_grad_norm=1.0 if self.seed % 3 == 0 else None)

    def set_hyper(self, opt, k):
        """Every eight steps another value: one that begins a new history under missed="replay"."""
        _, _, name, values = RULES[self.rule]
        opt.param_groups[0][name] = values[k // 8 % 2]

    def rows(self, k):
        rng = np.random.default_rng([self.seed, k])
        users, items, n = SIZES[self.size]
        return {"user": rng.zipf(1.2, n) % users, "item": rng.integers(0, items, n)}

    def gradients(self, opt, k, rows):
        """Return gradients that depend on the tables, so no difference is lost. Forms alternate; some have NaNs."""
        user, item, (i, j) = opt.params["user"], opt.params["item"], rows.values()
        rng = np.random.default_rng([self.seed, k, 1])
        weights = rng.standard_normal(len(j))
        if k % 5 == 3:
            weights[0] = np.nan
        if k % 3 == 0:
            of_item = so.RowGradient(j, item[j] * weights[:, None])
        elif k % 3 == 1:
            columns = rng.integers(0, item.shape[1], len(j))
            of_item = sp.coo_array((item[j, columns] * weights, (j, columns)), shape=item.shape).tocsr()
        else:
            X = sp.coo_array((weights, (np.arange(len(j)) % 5, j)), shape=(5, len(item))).tocsr()
            of_item = so.MatmulGradient(X, item[j[:5]])
        return {"user": so.RowGradient(i, user[i] - 0.5), "item": of_item}


def digest(opt):
    found = hashlib.sha256(f"{opt.steps} {opt.nonfinite_rows}".encode())
    for name, table in opt.params.items():
        found.update(table.tobytes())
        for key, array in opt.state[name].items():
            found.update(f"{name} {key}".encode() + array.tobytes())
    return found.hexdigest()


def finish(course, opt):
    if course.missed == "replay":
        opt.catch_up()


def never_disturbed(course, pipe):
    """The same loop without a checkpoint."""
    opt = course.begin()
    for k in range(course.steps):
        rows = course.rows(k)
        course.set_hyper(opt, k)
        if course.missed == "replay":
            opt.catch_up(rows)
        opt.step(course.gradients(opt, k, rows))
    finish(course, opt)
    pipe.send(("digest", digest(opt)))


# Kills.

def one_life(course, pipe, path):
    """From the last checkpoint to the end of the course, saying what begins and ends."""
    opt = so.load(path) if path.exists() else course.begin()
    pipe.send(("loaded", opt.steps, time.monotonic()))

    def save():
        pipe.send(("saving", opt.steps, time.monotonic()))
        so.save(path, opt)
        pipe.send(("saved", opt.steps, time.monotonic()))

    while opt.steps < course.steps:
        k, rows = opt.steps, course.rows(opt.steps)
        course.set_hyper(opt, k)
        if course.missed == "replay":
            opt.catch_up(rows)
        opt.step(course.gradients(opt, k, rows))
        if opt.steps % SAVED_EVERY == 0:
            save()
    finish(course, opt)
    save()
    pipe.send(("digest", digest(opt)))


def guarded(work, course, pipe, *more):
    warnings.simplefilter("ignore", RuntimeWarning)         # of rows with a NaN
    try:
        work(course, pipe, *more)
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
    pipe.close()


class Life:
    """A process of its own, and what it has said so far. A forked one has one thread and starts in milliseconds."""

    def __init__(self, method, work, course, *more):
        context = multiprocessing.get_context(method)
        self.pipe, end = context.Pipe(duplex=False)
        self.process = context.Process(target=guarded, args=(work, course, end, *more))
        self.begun = time.monotonic()
        self.process.start()
        end.close()
        self.said = []
        self.over = False

    def listen(self, seconds=None, until=None):
        """Until it is over, the time is, or a message of this kind has come."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.over:
            if deadline is not None and not self.pipe.poll(max(0, deadline - time.monotonic())):
                return
            try:
                self.said.append(self.pipe.recv())
            except (EOFError, OSError):         # also of a message that the kill has cut short
                self.over = True
                self.process.join()
                self.pipe.close()
            if until is not None and self.said and self.said[-1][0] == until:
                return

    def last(self, kind):
        return next((message for message in reversed(self.said) if message[0] == kind), None)

    def kill(self):
        self.process.kill()
        self.listen()


def to_the_end(course):
    life = Life("fork", never_disturbed, course)
    life.listen()
    if life.last("digest") is None:
        raise RuntimeError(f"{course} does not even run undisturbed: {life.said}")
    return life.last("digest")[1]


class Typical:
    """Seconds that something takes, as seen so far."""

    def __init__(self, seconds):
        self.seconds = seconds

    def see(self, seconds):
        self.seconds += 0.2 * (seconds - self.seconds)


def counted(counter):
    return ", ".join(f"{n} in {what}" for what, n in counter.most_common())


def kill_courses(missed, number, rng):
    """Yield a line about each kind of failure; last a summary."""
    phases, faults, courses, left = Counter(), Counter(), 0, 0
    save, first = Typical(0.03), Typical(0.1)               # seconds of saving, and of a life until it has saved
    while phases.total() < number:
        course = Course(list(RULES)[courses % len(RULES)], missed, "large", int(rng.integers(1 << 31)))
        courses += 1
        expected = to_the_end(course)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint"
            kept, fault = 0, None
            while fault is None:
                life = Life("fork", one_life, course, path)
                if phases.total() < number:
                    if rng.random() < 0.5:          # while saving; else at any time
                        for _ in range(rng.integers(1, 4)):
                            life.listen(until="saving")
                        life.listen(rng.uniform(0, 1.1 * save.seconds))
                    else:
                        life.listen(rng.uniform(0, 2 * first.seconds))
                else:
                    life.listen()
                killed = not life.over
                if killed:
                    life.kill()
                    at = life.said[-1][0] if life.said else "start"
                    phases[{"start": "loading", "saving": "saving", "digest": "the end"}.get(at, "stepping")] += 1
                for (_, *begin), (kind, *end) in itertools.pairwise(life.said):
                    if kind == "saved":
                        save.see(end[1] - begin[1])
                if life.last("saved"):
                    first.see(next(message for message in life.said if message[0] == "saved")[2] - life.begun)
                loaded = life.last("loaded")
                if life.last("raised"):
                    fault = life.last("raised")[1]
                elif not killed and life.process.exitcode != 0:
                    fault = f"the process ended with {life.process.exitcode}"
                elif loaded and loaded[1] < kept:
                    fault = f"a checkpoint of {kept} steps was saved; the next life began at {loaded[1]}"
                elif not killed:
                    if life.last("digest")[1] != expected:
                        fault = "it came to other bits"
                    break
                if life.last("saved"):
                    kept = life.last("saved")[1]
            others = [name for name in os.listdir(folder) if name != path.name]
            if fault is None and others:
                left += len(others)
                fault = "files are left beside the checkpoint"
        if fault is not None:
            faults[fault] += 1
            if faults[fault] == 1:
                yield f"FAILED {course}: {fault}"
    yield (f"{missed}: {phases.total()} kills ({counted(phases)}) in {courses} courses; "
           f"{faults.total()} courses failed, {left} files left")
    return faults.total()


# Interrupts.

class Interrupt:
    """Raises KeyboardInterrupt in the call of `during`, and in nothing else."""

    def __init__(self):
        self.armed = False
        self.came = False
        signal.signal(signal.SIGALRM, self.handle)

    def handle(self, signum, frame):
        if self.armed:
            self.armed, self.came = False, True
            raise KeyboardInterrupt

    def during(self, work, seconds):
        """Call work(); return None, or where in the library the interrupt came that it raised."""
        self.armed, self.came, where = True, False, None
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
            work()
            self.armed = False
        except KeyboardInterrupt as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__)
                      if frame.filename.startswith(PACKAGE)]
            where = "before or after"
            if frames:
                where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}"
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return where


def differences(one, other, name="state_dict"):
    """Return the differences between two state_dicts, to the bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if set(one) != set(other):
            return [f"{name}: {sorted(map(str, one))} and {sorted(map(str, other))}"]
        return [found for key in one for found in differences(one[key], other[key], f"{name}[{key!r}]")]
    if isinstance(one, np.ndarray):
        same = one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
        return [] if same else [name]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return [name]
        return [found for i, pair in enumerate(zip(one, other, strict=True))
                for found in differences(*pair, f"{name}[{i}]")]
    if callable(one):
        return [] if repr(vars(one)) == repr(vars(other)) else [name]
    return [] if one == other else [f"{name}: {one!r} and {other!r}"]


def interrupted_course(course, pipe, path):
    """The course with interrupts, beside a twin that takes the same steps without."""
    rng = np.random.default_rng([course.seed, 2])
    interrupt = Interrupt()
    typical = {"catch_up": Typical(1e-4), "step": Typical(1e-4), "save": Typical(1e-3), "load": Typical(1e-3)}
    opt, twin = course.begin(), course.begin()
    last = None                                 # interrupt, as long as no failure has been laid to it
    saved = None                                # steps of the checkpoint

    def again():
        fresh = course.begin()
        fresh.load_state_dict(copy.deepcopy(twin.state_dict()))
        return fresh

    def disturbed(kind, work):
        """Call work(); return whether it was interrupted."""
        nonlocal last
        begin = time.perf_counter()
        disturb = opt.steps >= 3 and rng.random() < 0.5
        where = interrupt.during(work, rng.uniform(0, 1.1 * typical[kind].seconds) if disturb else 1e3)
        if where is not None:
            last = kind, where
            pipe.send(("interrupt", kind, where))
        elif interrupt.came:
            pipe.send(("swallowed", kind))
        else:
            typical[kind].see(time.perf_counter() - begin)
        return where is not None

    def check(what, found):
        """Whether nothing is found that is laid to the last interrupt; else start afresh from the twin."""
        nonlocal last, opt
        if not found:
            return True
        if last is None:
            raise AssertionError(f"{what} without an interrupt: {found}")
        pipe.send(("failure", *last, f"{what}: {', '.join(found[:3])}{', ...' * (len(found) > 3)}"))
        last, opt = None, again()
        return False

    def check_checkpoint():
        nonlocal saved
        so.save(path, opt)
        saved = opt.steps
        check("what is loaded is not what was saved", differences(so.load(path).state_dict(), opt.state_dict()))

    while twin.steps < course.steps:
        k, rows = twin.steps, course.rows(twin.steps)
        for one in (opt, twin):
            course.set_hyper(one, k)
        if course.missed == "replay":
            twin.catch_up(rows)
            while disturbed("catch_up", lambda: opt.catch_up(rows)):    # noqa: B023
                check_checkpoint()
            check("after catch_up", differences(opt.state_dict(), twin.state_dict()))
        gradients = course.gradients(twin, k, rows)
        while opt.steps == k:
            try:
                stopped = disturbed("step", lambda: opt.step(gradients))    # noqa: B023
            except Exception as error:
                check("the next step raises", [repr(error)])
                continue
            if opt.steps not in (k, k + 1):
                check("steps", [f"{opt.steps} after step {k + 1}"])
            if opt.steps == k + 1:
                break
            if not stopped:
                raise AssertionError(f"step {k + 1} was taken and is not counted")
            if check("neither before the step nor after it", differences(opt.state_dict(), twin.state_dict())):
                check_checkpoint()
        twin.step(gradients)
        check("other than the undisturbed step", differences(opt.state_dict(), twin.state_dict()))
        if twin.steps % SAVED_EVERY == 0:
            while disturbed("save", lambda: so.save(path, opt)):
                check("an interrupted save changes the optimizer", differences(opt.state_dict(), twin.state_dict()))
                if path.exists():
                    steps = so.load(path).steps
                    check("the file", [] if steps in (saved, opt.steps) else [f"of {steps} steps, after {saved}"])
            check_checkpoint()
            loaded = []
            while disturbed("load", lambda: loaded.append(so.load(path))):      # noqa: B023
                pass
            check("an interrupted load", differences(loaded[-1].state_dict(), twin.state_dict()))
    finish(course, opt)
    pipe.send(("digest", digest(opt)))


def interrupt_courses(missed, number, rng):
    """Yield a line about each failing place; last a summary."""
    hits, places, failed, swallowed, courses, broken = Counter(), set(), Counter(), 0, 0, 0
    while hits.total() < number:
        course = Course(list(RULES)[courses % len(RULES)], missed,
                        ("small", "small", "large")[courses // len(RULES) % 3],
                        int(rng.integers(1 << 31)), num_threads=1 + courses % 2)
        courses += 1
        expected = to_the_end(course)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint"
            # a forked process would have one thread, whatever is asked for
            life = Life("fork" if course.num_threads == 1 else "spawn", interrupted_course, course, path)
            life.listen()
            others = [name for name in os.listdir(folder) if name != path.name]
        for message in life.said:
            if message[0] == "interrupt":
                hits[message[1]] += 1
                places.add(message[2])
            elif message[0] == "swallowed":
                swallowed += 1
            elif message[0] == "failure":
                failed[message[1:3]] += 1
                if failed[message[1:3]] == 1:
                    yield f"FAILED {course}: interrupted in {message[1]} at {message[2]}: {message[3]}"
        wrong = (life.last("raised") or (None, None))[1]
        if wrong is None and life.process.exitcode != 0:
            wrong = f"the process ended with {life.process.exitcode}"
        if wrong is None and life.last("digest")[1] != expected:
            wrong = "it came to other bits"
        if wrong is None and others:
            wrong = "files are left beside the checkpoint"
        if wrong is not None:
            broken += 1
            yield f"FAILED {course}: {wrong}"
    yield (f"{missed}: {hits.total()} interrupts ({counted(hits)}) at {len(places)} places in {courses} courses; "
           f"{failed.total()} failed, {broken} courses failed otherwise, {swallowed} were swallowed"
           + "".join(f"\n  {n} failed in {kind} at {place}" for (kind, place), n in failed.most_common()))
    return failed.total() + broken


def report(lines):
    """Print them as they come; return how many failures there were."""
    while True:
        try:
            print(next(lines), flush=True)
        except StopIteration as stop:
            return stop.value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--interrupts", type=int, default=1000)
    parser.add_argument("--missed", choices=["skip", "replay"], help="one of them; both if left out")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    # what takes a while and is kept: so that no life begins with it
    for cls, hyper, name, values in RULES.values():
        for value in values:
            cls(so.zeros((1, 1)), **{**hyper, name: value}, missed="replay")
            cls(so.zeros((1, 1), np.float64), **{**hyper, name: value}, missed="replay")
    failures = 0
    for missed in [options.missed] if options.missed else ["skip", "replay"]:
        for courses, number in ((kill_courses, options.kills), (interrupt_courses, options.interrupts)):
            if number:
                begin = time.monotonic()
                failures += report(courses(missed, number, np.random.default_rng(options.seed)))
                print(f"  in {time.monotonic() - begin:.0f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
