"""Whatever happens in whatever order: a final state stays, and the events agree with the row."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from likeness.jobs.deliveries import DeliveryLog
from likeness.jobs.job import FINAL, Claim, Failure, Job, JobOrder, Notice
from likeness.jobs.queue import Queue
from likeness.jobs.store import curve
from tests.worker.claims import claimed, next_claim, set_lease

FAILURE = Failure("NonFiniteLoss", "the loss stopped being a number")


class Life(RuleBasedStateMachine):
    """One job, two workers and an owner, each doing what they may at any time."""

    queue: Queue
    count = 0

    @initialize()
    def submit(self) -> None:
        type(self).count += 1
        for job in self.queue.jobs_of("anna"):
            self.queue.cancel(job.id, "anna")
        order = JobOrder("anna", f"rex-{self.count}", "anna/uploads/x", notices=(Notice("mail", "a@b.c"),))
        self.job: Job = self.queue.submit(order)
        self.claims: list[Claim] = []
        self.ended: str | None = None

    @rule(worker=st.sampled_from(["w-0", "w-1"]))
    def claim(self, worker: str) -> None:
        set_lease(self.queue.database, None)  # as where another worker has died
        claim = next_claim(self.queue.database, worker)
        assert (claim is None) == (self.ended is not None)
        if claim is not None:
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(["succeeded", "failed"]))
    def finish(self, data: st.DataObject, state: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        is_mine = claim == self.claims[-1] and self.ended is None
        assert self.queue.store.holds(claim) == is_mine
        failure = FAILURE if state == "failed" else None
        assert self.queue.store.finish(claim, state, failure=failure, keep_photos_s=0) == is_mine  # type: ignore[arg-type]
        if is_mine:
            self.ended = state

    @rule()
    def cancel(self) -> None:
        assert self.queue.store.cancel(self.job.id, "anna") == (self.ended is None)
        self.ended = self.ended or "cancelled"

    @rule()
    def cancel_by_another(self) -> None:
        assert not self.queue.store.cancel(self.job.id, "ben")

    @invariant()
    def what_is_told_agrees(self) -> None:
        found = self.queue.store.find(self.job.id)
        assert found is not None
        expected = self.ended or ("running" if self.claims else "queued")
        assert found.state == expected
        told = [event.facts["state"] for event in self.queue.store.events(self.job.id) if event.kind == "state"]
        assert told[-1] == expected
        assert len(told) == len(set(told))
        assert sum(state in FINAL for state in told) == (self.ended is not None)
        assert (found.finished_s is not None) == (self.ended is not None)
        assert self.messages() == (self.ended is not None)

    def messages(self) -> int:
        return len(DeliveryLog(self.queue.database).of_job("anna", self.job.id))


def test_a_jobs_life(queue: Queue) -> None:
    machine = type("OneLife", (Life,), {"queue": queue, "count": 0})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=8, deadline=None))


def running(queue: Queue) -> Claim:
    queue.submit(JobOrder("anna", "rex", "anna/x"))
    return claimed(queue.database)


def test_progress_goes_with_the_end_and_the_other_events_stay(queue: Queue) -> None:
    claim = running(queue)
    for kind in (*["progress"] * 3, "checkpoint"):
        queue.store.tell(claim, kind, {"done": 1, "loss": None})
    seqs = [event.seq for event in queue.events(claim.job, "anna")]
    assert seqs == sorted(set(seqs))
    assert [event.kind for event in queue.events(claim.job, "anna", after=seqs[3])] == ["progress", "checkpoint"]
    queue.store.finish(claim, "failed", failure=FAILURE, keep_photos_s=0)
    assert [event.kind for event in queue.events(claim.job, "anna")] == ["state", "state", "checkpoint", "state"]


def test_the_losses_stay_in_few_points(queue: Queue) -> None:
    claim = running(queue)
    for done in range(5):
        queue.store.tell(claim, "progress", {"done": done, "loss": None if done == 0 else done / 8})
    queue.store.finish(claim, "failed", failure=FAILURE, keep_photos_s=0)
    kept = [event.facts for event in queue.events(claim.job, "anna") if event.kind == "losses"]
    assert kept == [{"losses": [0.125, 0.25, 0.375, 0.5]}]
    assert curve([]) == []
    many = curve([float(step) for step in range(1001)])
    assert len(many) <= 200 and many[:2] == [2.5, 8.5] and many[-1] == 998.0


def test_deaths_are_counted_until_the_job_gets_further(queue: Queue) -> None:
    claim = running(queue)
    assert [queue.store.died(claim) for _ in range(2)] == [1, 2]
    queue.store.got_further(claim)
    assert queue.store.died(claim) == 1
