"""Which process runs when: a process per class, single tests again where a class went wrong."""

from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from .cases import CRASHED, FAILED, HUNG, PASSED, PROCESS_EXIT, Outcome, TestClass, TestId
from .process import INTERRUPTED, run_child

# Where no earlier run says how long a class takes: these first, in this order.
SLOW_MODULES = (
    "test_ssl",
    "test_subprocess",
    "test_sock_lowlevel",
    "test_events",
    "test_sendfile",
    "test_unix_events",
    "test_tasks",
)


@dataclass(frozen=True)
class Limits:
    """Seconds, and how many tests of one class may hang before the rest is given up."""

    class_run: float = 180.0
    class_stall: float = 60.0
    single: float = 30.0
    expected_failure: float = 10.0
    hung_tests: int = 5


@dataclass
class Job:
    cls: TestClass
    single: bool = False
    expected_to_fail: bool = False
    again: bool = False  # the test went wrong in the run of its class; this is for the record


@dataclass
class Scheduler:
    subject: object
    workers: int
    limits: Limits = field(default_factory=Limits)
    weights: dict[tuple[str, str], float] = field(default_factory=dict)
    progress: object = lambda text: None

    def __post_init__(self):
        self.outcomes: dict[TestId, Outcome] = {}
        self._hung = Counter()

    def run(self, classes, expected_to_fail=frozenset()):
        """Run all tests of `classes`; those `expected_to_fail` apart from the others."""
        jobs = []
        for cls in classes:
            listed = [test for test in cls.tests if cls.id_of(test) in expected_to_fail]
            others = [test for test in cls.tests if cls.id_of(test) not in expected_to_fail]
            if others:
                jobs.append(Job(TestClass(cls.module, cls.name, others)))
            if listed:
                part = TestClass(cls.module, cls.name, listed)
                jobs.append(Job(part, expected_to_fail=True))
        jobs.sort(key=self._weight, reverse=True)
        self._run_jobs(jobs)
        return self.outcomes

    def retry(self, ids, times):
        """Run each test alone, up to `times` times; return those that passed once."""
        passed = set()
        for _ in range(times):
            left = [test for test in ids if test not in passed]
            earlier = {test: self.outcomes[test] for test in left}
            self._run_jobs([Job(TestClass(t.module, t.class_name, [t.test]), True) for t in left])
            passed.update(test for test in left if self.outcomes[test].status == PASSED)
            self.outcomes.update(
                (test, outcome) for test, outcome in earlier.items() if test not in passed
            )
        return passed

    def _weight(self, job):
        cls = job.cls
        if (seconds := self.weights.get((cls.module, cls.name))) is not None:
            return seconds * (0.5 if job.expected_to_fail else 1.0)
        if cls.module in SLOW_MODULES:
            return 1000.0 - SLOW_MODULES.index(cls.module)
        return 0.0

    def _run_jobs(self, jobs):
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                self._await_jobs(pool, jobs)
            except BaseException:
                INTERRUPTED.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _await_jobs(self, pool, jobs):
        pending = {pool.submit(self._run_job, job): job for job in jobs}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                job = pending.pop(future)
                run = future.result()
                follow_ups = self._take(job, run) if run is not None else []
                pending.update({pool.submit(self._run_job, new): new for new in follow_ups})

    def _run_job(self, job):
        cls = job.cls
        if job.single and self._hung[cls.module, cls.name] >= self.limits.hung_tests:
            if not job.again:
                text = f"not run: {self.limits.hung_tests} tests of this class have hung"
                self.outcomes[cls.id_of(cls.tests[0])] = Outcome(HUNG, text)
            return None
        limit = self.limits.single if job.single else self.limits.class_run
        stall = self.limits.single if job.single else self.limits.class_stall
        if job.expected_to_fail:
            stall = self.limits.expected_failure
        work = {"module": cls.module, "class": cls.name, "tests": cls.tests}
        return run_child(self.subject, work, stall=stall, limit=limit)

    def _take(self, job, run):
        """Note what a process did; return the jobs that follow from it."""
        cls = job.cls
        if job.again:
            self._note_second_run(cls.id_of(cls.tests[0]), run)
            return []
        for test, outcome in run.outcomes.items():
            self.outcomes[cls.id_of(test)] = outcome
        left = [test for test in cls.tests if test not in run.outcomes]
        if run.finished:
            self._take_end(job, run, left)
            return []
        return self._take_breakdown(job, run, left)

    def _take_end(self, job, run, left):
        cls = job.cls
        for test in left:
            nothing = Outcome(FAILED, "the process ended without running it\n" + run.output)
            self.outcomes[cls.id_of(test)] = run.fixture or nothing
        if run.fixture is not None and run.fixture.status == FAILED:
            # tearDownClass or tearDownModule: no test of its own would tell of it.
            self.outcomes[cls.id_of(cls.tests[-1])] = run.fixture
        if run.exit_trouble and not job.expected_to_fail:
            detail = f"{run.exit_trouble}\n{run.output}"
            self.outcomes[cls.id_of(PROCESS_EXIT)] = Outcome(CRASHED, detail)
        self.progress(f"{cls.module}.{cls.name}")

    def _take_breakdown(self, job, run, left):
        cls = job.cls
        status = HUNG if run.timed_out else CRASHED
        culprit = cls.tests[0] if job.single else run.running
        where = "alone" if job.single else "in the run of its class"
        how = "made no progress" if run.timed_out else f"ended the process ({run.returncode})"
        follow_ups = []
        if culprit is not None:
            detail = f"{how} {where}\n{run.output}"
            self.outcomes[cls.id_of(culprit)] = Outcome(status, detail)
            if run.timed_out:
                self._hung[cls.module, cls.name] += 1
            left = [test for test in left if test != culprit]
            if not job.single and not job.expected_to_fail:
                alone = TestClass(cls.module, cls.name, [culprit])
                follow_ups.append(Job(alone, single=True, again=True))
        for test in left:
            alone = TestClass(cls.module, cls.name, [test])
            follow_ups.append(Job(alone, True, job.expected_to_fail))
        self.progress(f"{cls.module}.{cls.name} {status}: {culprit or 'before its first test'}")
        return follow_ups

    def _note_second_run(self, test, run):
        if test.test in run.outcomes:
            alone = run.outcomes[test.test].status
        else:
            alone = HUNG if run.timed_out else CRASHED
        first = self.outcomes[test]
        first.detail = f"[alone: {alone}] {first.detail}"
