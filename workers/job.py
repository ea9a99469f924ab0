"""Runs one job from order to result, and turns every exception into a result with a stop reason."""

from __future__ import annotations

import gc
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import torch

from interp_model.network import Network, build_network
from schemas.errors import (
    AccessDenied,
    CheckpointError,
    DataAbsent,
    DataError,
    Diverged,
    Interrupted,
    SpecError,
    StoreError,
    StoreUnreachable,
    Superseded,
    WeightsError,
)
from schemas.job import RandomWeights
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import CheckpointPointer, Failure, JobMetrics, JobResult
from workers.checkpoints.ending import write_end
from workers.checkpoints.leaving import leave_to_run
from workers.checkpoints.loading import find_checkpoint, load_checkpoint
from workers.checkpoints.sharing import Sharing
from workers.checkpoints.store import CheckpointStore
from workers.data.dataset import JobData, load_job_data
from workers.data.pushed.pulling import GIB, SharedData
from workers.evaluation.evaluate import evaluate
from workers.node_folders import in_node_folders
from workers.objects.base import open_objects
from workers.objects.waiting import patiently
from workers.tracking.buffered_log import BufferedLog
from workers.tracking.job_log import LOGGER, job_log, job_thread, log_epoch, log_path
from workers.tracking.live_log import live_log
from workers.tracking.outages import briefly_patient, is_full_disk
from workers.tracking.run_log import RunLog
from workers.tracking.system_metrics import system_metrics
from workers.training.determinism import choose_device, make_deterministic, seeded
from workers.training.frozen_features import FeatureStore
from workers.training.inputs import Inputs
from workers.training.packs import Packs
from workers.training.records import EpochRecord
from workers.training.shared_weights import SharedWeights
from workers.training.starting_weights import load_starting_weights
from workers.training.trainer import Trainer

STOP_REASONS: tuple[tuple[type[Exception], StopReason], ...] = (
    (Interrupted, StopReason.INTERRUPTED),
    (Superseded, StopReason.SUPERSEDED),
    (Diverged, StopReason.DIVERGED),
    (DataAbsent, StopReason.DATA_ABSENT),
    (DataError, StopReason.BAD_DATA),
    (SpecError, StopReason.BAD_SPEC),
    (WeightsError, StopReason.BAD_SPEC),
    (AccessDenied, StopReason.ACCESS_DENIED),
    (CheckpointError, StopReason.CODE_RAISED),  # a store error, but waiting does not help
    (StoreError, StopReason.STORE_UNREACHABLE),
    (MemoryError, StopReason.OUT_OF_MEMORY),
    (torch.OutOfMemoryError, StopReason.OUT_OF_MEMORY),
    (Exception, StopReason.CODE_RAISED),
)
"""Stop reason by exception class; the first class that matches decides."""

_WITHOUT_A_STORE = (StopReason.SUPERSEDED, StopReason.STORE_UNREACHABLE, StopReason.ACCESS_DENIED)
"""Reasons after which an attempt does not try to write to its run."""

NO_MEMORY = (
    "can't allocate memory",
    "could not create a primitive",
    "could not create a memory",
    "failed to map segment",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Messages of plain errors that mean out of memory: of torch's CPU allocator; of oneDNN, which runs the CPU's
convolutions; of the loader of libraries; and of CUDA and its libraries."""


def stop_reason_of(error: Exception) -> StopReason:
    """Return the stop reason of a job that raised `error`."""
    if is_full_disk(error) and not isinstance(error, (Interrupted, Superseded)):
        return StopReason.DISK_FULL
    if isinstance(error, RuntimeError | ImportError) and any(words in str(error) for words in NO_MEMORY):
        return StopReason.OUT_OF_MEMORY
    return next(reason for kind, reason in STOP_REASONS if isinstance(error, kind))


@job_thread()
def run_job(
    order: WorkOrder, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool],
    is_preempted: Callable[[], bool] = lambda: False, packs: Packs | None = None,
) -> JobResult:  # fmt: skip
    """Run one job, from its newest checkpoint if it has one. An exception becomes part of the result.

    Args:
        order: the job, and where to read, write and log.
        on_progress: called with what the job is doing.
        should_stop: called before every batch; once true, the job saves a checkpoint and ends as interrupted.
        is_preempted: whether it is asked to stop because this machine is taken away.
        packs: what it shares with the jobs in other threads of this process; None if there are none.
    """
    started = time.monotonic()
    order = in_node_folders(order)
    job = _Job(order, on_progress, should_stop, packs)
    reason, failure, metrics, device_failed = StopReason.FINISHED, None, None, False
    with packs.running() if packs else nullcontext(lambda: 1.0) as jobs_at_once:
        try:
            with job_log(order), live_log(order), system_metrics(order):
                metrics = job.run()
        except Exception as error:  # noqa: BLE001 - part of the result; a BaseException is not caught
            reason = stop_reason_of(error)
            device_failed = isinstance(error, torch.AcceleratorError) and reason is StopReason.CODE_RAISED
            if reason is StopReason.INTERRUPTED and is_preempted():
                reason = StopReason.PREEMPTED
            where = f"On {socket.gethostname()}: " if reason is StopReason.DISK_FULL else ""
            failure = Failure(kind=type(error).__name__, message=f"{where}{error}", traceback=traceback.format_exc())
        finally:
            job.release()
        shared_by = jobs_at_once()
    result = JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=reason,
        epochs_done=job.checkpoint.epoch if job.checkpoint else 0,
        seconds=time.monotonic() - started,
        metrics=metrics,
        checkpoint=job.checkpoint,
        failure=failure,
        micro_batches=order.micro_batches,
        in_pack=job.in_pack,
        device_failed=device_failed,
        jobs_at_once=shared_by,
        problems=job.problems,
    )
    if reason is not StopReason.SUPERSEDED:
        write_end(Path(order.checkpoint_dir), result)
    return job.conclude(result)


class _Job:
    def __init__(
        self,
        order: WorkOrder,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        packs: Packs | None,
    ) -> None:
        self.checkpoint: CheckpointPointer | None = None
        """The newest checkpoint, even if the job fails later."""
        self.problems: tuple[str, ...] = ()
        self.in_pack = False
        """Whether a step was computed together with other jobs; known once the job is released."""
        self._store = CheckpointStore(Path(order.checkpoint_dir), order.spec.key, order.attempt)
        self._order = order
        self._spec = order.spec
        self._epoch = 0
        self._records: Sequence[EpochRecord] = ()
        self._phase = ""
        self._log = BufferedLog(
            lambda: RunLog(order.tracking_uri, order.run_id, order.attempt), order.spec, order.store_patience
        )
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._packs = packs
        self._trainer: Trainer | None = None
        self._sharing: Sharing | None = None

    def run(self) -> JobMetrics:
        """Train, measure and log the job."""
        make_deterministic(self._order.threads)
        device = choose_device()
        self._take_over()  # before reading the run, so that no earlier attempt writes to it afterwards
        self._report("opening the run")
        self._log.bring_up_to_date(())
        self._report("preparing images")
        data = load_job_data(
            self._spec.data,
            self._spec.evaluation,
            input_size=self._spec.model.input_size,
            seed=self._spec.seed,
            cache_dir=Path(self._order.cache_dir),
            data_root=Path(self._order.data_root) if self._order.data_root else None,
            on_progress=self._report,
            shared=self._shared_data(),
            processes=self._order.threads,
        )
        network = self._build_network().to(device)
        limit = int(self._order.features_gb * GIB)
        store = FeatureStore(Path(self._order.cache_dir), limit) if limit else None
        train, test, measured = (
            Inputs(network, split, data.mean_SS3, device, memory_divisor=self._order.micro_batches, store=store)
            for split in (data.train, data.test, data.measured)
        )
        if self._order.micro_batches > 1:
            LOGGER.info(
                "an earlier attempt ran out of memory: batches are cut into %d parts", self._order.micro_batches
            )
        pack = self._packs.of(self._spec) if self._packs and not self._order.alone else None
        trainer = Trainer(self._spec, network, train, test, micro_batches=self._order.micro_batches, pack=pack)
        self._trainer = trainer
        if self.checkpoint is not None:
            trainer.load_state_dict(load_checkpoint(self.checkpoint, self._spec.key))
            self._epoch = trainer.epoch
            LOGGER.info("resuming after epoch %d%s", self._epoch, f", step {trainer.step}" if trainer.step else "")
        for inputs, flip in ((train, self._spec.train.horizontal_flip), (test, False)):
            inputs.keep_features(horizontal_flip=flip, report=self._report)
        measured.map_batches(self._report)
        self._train(trainer)
        with self._packs.one_at_a_time(self._report) if self._packs else nullcontext():
            return self._measure(trainer, data, train, test, measured)

    def _shared_data(self) -> SharedData | None:
        return SharedData.at(self._order.object_store, self._order.store_patience, self._order.cache_gb)

    def _shared_weights(self) -> SharedWeights:
        order = self._order
        store = open_objects(order.object_store) if order.object_store else None
        return SharedWeights(store, Path(order.cache_dir).parent / "weights", order.store_patience, self._report)

    def _take_over(self) -> None:
        if self._order.object_store is not None:
            self._sharing = Sharing(self._order.object_store, self._store, self._order.store_patience, self._pause)
            self._sharing.delete_unused()
        taken = self._store.take_over(self._await_final)
        self.checkpoint = taken.checkpoint
        if self._sharing is not None:
            taken = self._sharing.take_over(taken, self._fetch_final)
        self.checkpoint, self.problems = taken.checkpoint, taken.problems
        for problem in taken.problems:
            LOGGER.warning("%s", problem)

    def _fetch_final(self, final: CheckpointPointer, folder: Path) -> Path | None:
        run = self._log.run or RunLog(self._order.tracking_uri, self._order.run_id)
        return run.fetch_checkpoint(final, folder)

    def _await_final(self, final: CheckpointPointer, folder: Path) -> Path | None:
        patience, what = self._order.store_patience, "the final checkpoint"
        return patiently(lambda: self._fetch_final(final, folder), patience, self._report, what)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._report("waiting for the object store")
            time.sleep(min(1.0, seconds))

    def release(self) -> None:
        """Record that this process no longer works on the attempt, and give back what it had of a GPU's memory."""
        self._store.release()
        self.in_pack = self._trainer is not None and self._trainer.in_pack
        self._trainer = None
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            gc.collect()
            with suppress(RuntimeError):  # a GPU that has failed
                torch.cuda.empty_cache()

    def conclude(self, result: JobResult) -> JobResult:
        """Leave the end and, with an object store, the newest checkpoint where other machines find them.

        Returns:
            The end, with this machine's name if the newest checkpoint is only here.
        """
        if self._sharing is not None:
            result = self._sharing.conclude(result, self._upload_end)
        else:
            self._upload_end(result)
        try:
            leave_to_run(self._store, result, self._fetch_final)
        except Exception as error:  # noqa: BLE001 - no error may change how the attempt ended
            LOGGER.warning("the final checkpoint stays in %s too: %s", self._store.folder, error)
        return result

    def _upload_end(self, result: JobResult) -> bool:
        """Log how the attempt ended, what is not yet logged, and its log file. Returns whether the run has the end."""
        run, has_end = self._log.run, False
        if run is None or result.stop_reason in _WITHOUT_A_STORE:
            return False
        try:
            if result.stop_reason is StopReason.FINISHED:
                briefly_patient(lambda: run.log_end(result))
            else:
                run.log_end(result)
            has_end = True
            run.log_epochs(self._records)  # the last one, if the job ended after it and before its outcome
            if self._order.log_dir is not None and not result.left_on:  # else the store of the log is away too
                run.log_log(log_path(Path(self._order.log_dir), self._spec.key, self._order.attempt))
        except Exception as error:  # noqa: BLE001 - no error may change the stop reason
            LOGGER.warning("the end and the log of this attempt cannot be uploaded: %s", error)
        return has_end

    def _report(self, phase: str) -> None:
        """Report the current phase, or raise Interrupted if the job was asked to stop."""
        if self._should_stop():
            raise Interrupted(f"Job {self._spec.key} was asked to stop while {phase}.")
        name = phase.partition(":")[0]  # a counter follows the colon
        if name != self._phase:
            self._phase = name
            LOGGER.info("%s", phase)
        self._on_progress(
            Progress(job_key=self._spec.key, phase=phase, epoch=self._epoch, epochs=self._spec.train.epochs)
        )

    def _build_network(self) -> Network:
        from_scratch = isinstance(self._spec.weights, RandomWeights)
        with seeded(self._spec.seed, 0, "weights"):
            network = build_network(self._spec.model, self._spec.n_outputs, from_scratch=from_scratch)
        if self.checkpoint is None:
            load_starting_weights(network, self._spec, self._upstream(), self._shared_weights())
        if self._spec.train.freeze_below is not None:
            network.freeze_below(self._spec.train.freeze_below)
        return network

    def _upstream(self) -> CheckpointPointer | None:
        order, upstream = self._order, self._spec.upstream
        if upstream is None or order.upstream is None:
            return None

        def fetch(final: CheckpointPointer, folder: Path) -> Path | None:
            return patiently(
                lambda: RunLog(order.tracking_uri, order.upstream_run_id).fetch_checkpoint(final, folder),
                order.store_patience, self._report, "the checkpoint of the pre-training",
            )  # fmt: skip

        return find_checkpoint(order.upstream, Path(order.checkpoint_dir), upstream.key, fetch)

    def _train(self, trainer: Trainer) -> None:
        spec, self._records = self._spec.train, trainer.records
        try:
            # Epochs that are in the checkpoint but were not logged because of an outage.
            self._log.bring_up_to_date(trainer.records)
            while trainer.epoch < spec.epochs:
                trainer.run_epoch(on_step=lambda: self._between_steps(trainer))
                self._epoch = trainer.epoch
                log_epoch(trainer.records[-1], spec.epochs, trainer.chance)
                if trainer.epoch == spec.epochs or trainer.epoch % spec.checkpoint_every == 0:
                    self._save(trainer)
                if trainer.epoch < spec.epochs:  # the last epoch is logged with the outcome
                    self._log.bring_up_to_date(trainer.records)
        except (Interrupted, StoreUnreachable, AccessDenied):
            # All are raised between two steps or two epochs, where the trainer's state is valid.
            if (trainer.epoch, trainer.step) != self._saved:
                self._save(trainer)
            raise

    def _between_steps(self, trainer: Trainer) -> None:
        every = self._spec.train.checkpoint_every_steps
        if every and trainer.step and trainer.step % every == 0 and (trainer.epoch, trainer.step) != self._saved:
            self._save(trainer)
        if self._log.is_behind:
            self._log.bring_up_to_date(trainer.records)
        self._report("training")

    @property
    def _saved(self) -> tuple[int, int]:
        return (self.checkpoint.epoch, self.checkpoint.step) if self.checkpoint else (0, 0)

    def _save(self, trainer: Trainer) -> None:
        state = trainer.state_dict(is_final=trainer.epoch == self._spec.train.epochs)
        self.checkpoint = self._store.save(trainer.epoch, state, trainer.step)
        if self._sharing is not None:
            self._sharing.offer(self.checkpoint)

    def _measure(self, trainer: Trainer, data: JobData, train: Inputs, test: Inputs, measured: Inputs) -> JobMetrics:
        from workers.outcome import write_outcome

        found = evaluate(trainer, data, train, test, measured, self._report)
        self._report("logging")
        self._store.keep_newest_only()
        assert self.checkpoint is not None
        try:
            with tempfile.TemporaryDirectory(prefix="orch-") as folder:
                write_outcome(Path(folder), trainer, data, measured, found, self._report)
                self.checkpoint = self._log.finish(
                    trainer.records, found.metrics, Path(folder), self.checkpoint, lambda: self._report("logging")
                )
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise StoreError(
                f"Tables and figures cannot be written in {tempfile.gettempdir()} ({error.strerror or error}). "
                "Make room there, or set TMPDIR to another folder."
            ) from error
        return found.metrics
