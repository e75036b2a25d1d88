"""A run: creates or restores network, trainer and loaders by its plan, and trains its epochs."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.contrib.logging import logging_redirect_tqdm

from data.batch_sampler import train_batches
from data.clip_batch import BadSample, Chunks
from data.clip_loader import LoaderError
from data.common.atomic_io import remove_leftovers
from train.builders import make_callbacks, make_loaders, make_state, make_trainer
from train.callbacks import Callback, EpochReport, GateMonitor, SpeedMonitor
from train.checkpointing.checkpoint import Content, archive_newer, error_context
from train.checkpointing.manager import CheckpointManager
from train.csv_log import truncate_results
from train.dry_run import format_summary
from train.engine import CorruptSamplesError, StepReport, TrainingError
from train.estimate import estimate_run
from train.metrics import compute_metrics, zero_metric_sums
from train.optimizer import is_fine_tuning
from train.parallel.devices import oom_as
from train.parallel.distributed import DistContext
from train.plan import Plan
from train.preflight import check_disk, check_first_clips, find_without_times
from train.run_folder import LogFile, exclusive_lock, find_resume_point, run_folder
from train.run_record import write_run_json
from train.signals import SignalHandler, StoppedError
from train.step_cost import StepCostMonitor, peak_flops

logger = logging.getLogger(__name__)

DEBUG_CLIPS = 8  # of the first batch of an epoch, described by --debug-mode
SYNC_STEPS = 4  # steps between exchanges of several ranks about checkpoints, signals and corrupt clips


class Run:
    """A planned run, from network to last epoch. The constructor writes nothing, and raises for invalid input."""

    def __init__(self, plan: Plan, dist: DistContext) -> None:
        torch.manual_seed(plan.options.random_seed)
        self.plan = plan
        self.dist = dist
        self.folder = run_folder(plan.spec, plan.options)
        path, checkpoint = self._find_checkpoint()
        with self._creation_errors(path):
            self.state = make_state(plan.options, plan.num_classes, plan.device, dist, checkpoint)
        self.options = replace(
            plan.options,
            channel_order=self.state.normalization.channel_order,
            # a resumed run fine-tunes as it began
            fine_tune=is_fine_tuning(checkpoint["optimizer"]) if checkpoint else plan.options.fine_tune,
        )
        if checkpoint is None and isinstance(self.options.resume_epoch, int):
            self.state.epochs_done = self.options.resume_epoch - 1  # of a dry run
        with self._creation_errors():
            self.trainer = make_trainer(self.options, self.state, plan.device, dist)
        self.checkpoints = CheckpointManager(
            folder=self.folder,
            options=self.options,
            dist=dist,
            trainer=self.trainer,
            state=self.state,
            metadata={
                "options": self.options.to_dict(),
                "classes": list(plan.dataset.classes),
                "dataset": {"name": plan.spec.name, **plan.dataset.summary()},
            },
            last_checkpoint=path,
        )
        self.loaders = make_loaders(
            *(self.options, plan.dataset, plan.base, plan.schedule, dist, plan.batchnorm_clips),
            done=(self.state.epochs_done, self.state.step),
        )
        self.callbacks: list[Callback] = []

    def _find_checkpoint(self) -> tuple[Path | None, Content | None]:
        """Return the path and content of the checkpoint to resume from; only the main process needs to see the file."""
        found: tuple[Path, Content] | tuple[None, None] = None, None
        if self.dist.is_main_process:
            try:
                found = find_resume_point(self.folder, self.plan.options, self.plan.spec, self.plan.dataset)
            except FileNotFoundError as error:
                if not self.plan.options.dry_run or self.plan.options.pretrained_3d:
                    raise
                logger.warning("%s; showing the schedule alone", error)
        return self.dist.broadcast_object(found[0]), self.dist.broadcast_checkpoint(found[1])

    @contextmanager
    def _creation_errors(self, path: Path | None = None) -> Iterator[None]:
        """Name the checkpoint, if any, or the device in errors of the body."""
        oom = (
            f"{self.plan.device}: out of memory while creating the network; is another process using the GPU?"
        )
        with error_context(path) if path else nullcontext(), oom_as(OSError, oom):
            yield

    @property
    def is_complete(self) -> bool:
        return self.state.epochs_done >= self.options.end_epoch

    def describe(self) -> dict[str, Any]:
        """Return what `--dry-run` prints: the remaining steps of the next epoch, and the whole run's relative FLOPs."""
        epoch = self.state.epochs_done + 1
        steps = () if self.is_complete else self.plan.schedule.epoch(epoch)
        described = {
            "options": self.options.to_dict(),
            "dataset": self.plan.dataset.summary(),
            "steps": [
                {"epoch": epoch, "step": n + 1, **steps[n].shape._asdict(), "lr": self.plan.lr(epoch, n)}
                for n in range(self.state.step, len(steps))
            ],
            "relative_flops": self.plan.relative_flops,
            "shared_memory_bytes": self.loaders.shared_memory,
        }
        if self.options.estimate:
            described["estimate"] = estimate_run(self.plan, self.loaders.train_dataset, self.dist.world_size)
        return described

    def train(self, log_file: LogFile) -> int:
        """Train the remaining epochs. Returns the exit code: 0, or 128 + n after signal n."""
        if not self.is_complete:
            check_first_clips(
                self.loaders.train_dataset,
                self.loaders.val_dataset,
                self.plan.base,
                self.options.skip_bad_samples,
            )
        if not self.dist.is_main_process:
            return self._train()
        if not self.is_complete:
            check_disk(self.folder, self.state.network, self.options)
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.folder), self.checkpoints.disk_full_guard(), logging_redirect_tqdm():
            log_file.open(self.options.log_file or self.folder / "train.log")
            remove_leftovers(self.folder)
            if not self.is_complete:
                epochs_done = self.state.epochs_done
                archive_newer(self.folder, self.options.network, epochs_done, self.state.step)
                truncate_results(self.folder, epochs_done + 1)
                self.plan.dataset.write_class_index()
                write_run_json(self.folder, self.options, self.checkpoints.metadata["dataset"])
            return self._train()

    def _train(self) -> int:
        epochs_done = self.state.epochs_done
        self.checkpoints.restore_best()
        if self.is_complete:
            logger.info("%s: the run is complete, %d epochs are done", self.folder, epochs_done)
            return 0
        if self.dist.is_main_process:
            self._log_summary()
        cost = self._make_cost_monitor()
        self.callbacks = make_callbacks(
            self.options, self.folder, self.plan.dataset.classes, self.state, self.dist, cost
        )
        with SignalHandler() as signals:
            try:
                for epoch in range(epochs_done + 1, self.options.end_epoch + 1):
                    self._run_epoch(epoch, signals)
            except StoppedError as stopped:
                self.checkpoints.save("last")
                self.checkpoints.wait()
                logger.warning("stopped in epoch %d; --resume-epoch auto resumes", self.state.epochs_done + 1)
                return 128 + stopped.signum
            except (CorruptSamplesError, LoaderError) as error:
                if self.dist.world_size == 1:  # saving is collective, and only some ranks failed
                    self.checkpoints.save("last")
                self.checkpoints.wait()
                raise TrainingError(f"{error}; {self.checkpoints.resume_hint()}") from error
            finally:
                self.loaders.clips.close()
                for callback in self.callbacks:
                    callback.close()
                self.checkpoints.wait()
        return 0

    def _make_cost_monitor(self) -> StepCostMonitor:
        assert self.options.precision is not None
        num_gpus = self.dist.world_size * (self.options.gpus or 1)
        peak = peak_flops(self.plan.device, self.options.precision, num_gpus)
        return StepCostMonitor(self.plan.clip_flops, peak)

    def _log_summary(self) -> None:
        options, dataset = self.options, self.plan.dataset
        logger.info(
            "%s: %d classes, %d training and %d validation videos",
            *(options.dataset, len(dataset.classes), len(dataset.train), len(dataset.val)),
        )
        if options.target_fps and (untimed := find_without_times(dataset.train)):
            logger.warning("--target-fps: %s and maybe others lack times; intervals are frames", untimed)
        source = self.checkpoints.last_checkpoint or options.pretrained_3d
        logger.debug("weights: %s", source or f"new, by --random-seed {options.random_seed}")
        params = sum(parameter.numel() for parameter in self.state.network.parameters()) / 1e6
        logger.info(
            "%s: %.2f M params, on %s in %s", options.network, params, self.plan.device, options.precision
        )
        steps = sum(len(self.plan.schedule.epoch(epoch)) for epoch in range(1, options.end_epoch + 1))
        megabytes = self.loaders.shared_memory / 1e6
        logger.info(
            "%d steps in %d epochs, up to %.0f MB of shared memory", steps, options.end_epoch, megabytes
        )
        if options.long_cycles or options.short_cycles:
            logger.info("FLOPs relative to a run without cycles: %.3f", self.plan.relative_flops)
            for line in format_summary(self.plan.phases, self.plan.schedule.phases):
                logger.info("%s", line)
        shard, batch = self.loaders.shard, self.plan.base.batch
        if shard.world_size > 1:
            logger.info("%d ranks, up to %d of %d clips each", shard.world_size, shard.largest(batch), batch)
            if idle := shard.world_size - shard.num_participants(batch):
                logger.warning("--batch-size %d: %d of %d ranks are idle", batch, idle, shard.world_size)
        elif options.sync_batchnorm:
            logger.warning("--sync-batchnorm: has no effect on a single rank; start several with torchrun")

    def _run_epoch(self, epoch: int, signals: SignalHandler) -> None:
        started = time.monotonic()
        state, trainer, dist = self.state, self.trainer, self.dist
        speed = SpeedMonitor()
        cost = self._make_cost_monitor()
        gates = GateMonitor(state.gate_names, self.plan.device, dist)
        steps = self.plan.schedule.epoch(epoch)
        if logger.isEnabledFor(logging.DEBUG):
            shapes, dataset = [step.shape for step in steps], self.loaders.train_dataset
            where = self.options.random_seed, epoch, shapes, state.step, self.loaders.shard
            for spec in next(train_batches(len(dataset), *where), [])[:DEBUG_CLIPS]:
                logger.debug("clip: %s", dataset.describe(spec))
        corrupt: list[BadSample] = []
        batches = itertools.islice(self.loaders.clips, len(steps) - state.step)
        for report in trainer.train_epoch(epoch, steps, batches, first_step=state.step):
            speed.on_step(report)
            cost.on_step(report)
            gates.on_step(report)
            corrupt += report.corrupt
            done = report.step + 1
            if dist.world_size > 1 and done % SYNC_STEPS and done < len(steps):
                self._after_step(report._replace(corrupt=[]))
                continue
            should_save, num_corrupt, *received = dist.sum_counts(
                self.checkpoints.should_save(), len(corrupt), *signals.received()
            )
            # all ranks have to agree on when there are too many
            self._after_step(report._replace(corrupt=dist.all_gather(corrupt) if num_corrupt else []))
            corrupt = []
            if should_save:
                self.checkpoints.save("last")
            signals.raise_if_requested(received)
        trainer.check_finite()
        step_cost = cost.summary()
        self._update_batchnorm(signals)
        val_started = time.monotonic()
        val_sums, val_corrupt, val_predictions = self._validate(epoch, signals)
        if val_corrupt:
            logger.warning("validation skipped %d of %d videos", len(val_corrupt), len(self.plan.dataset.val))
        epoch_report = EpochReport(
            epoch=epoch,
            lr=self.plan.lr(epoch, len(steps) - 1),
            train=compute_metrics(dist.all_reduce(state.sums)),
            val=compute_metrics(dist.all_reduce(val_sums)),
            train_seconds=val_started - started,
            val_seconds=time.monotonic() - val_started,
            data_time=speed.data_time,
            batches=Counter(step.shape for step in steps),
            throughput=speed.rates(),
            step_cost=step_cost,
            gates=gates.means(),
            val_corrupt=val_corrupt,
            val_predictions=val_predictions,
        )
        state.end_epoch()
        for callback in self.callbacks:  # rows before checkpoints: resuming drops rows without a checkpoint
            callback.on_epoch(epoch_report)
        self.checkpoints.save_epoch(epoch, epoch_report.val.top1)

    def _validate(
        self, epoch: int, signals: SignalHandler
    ) -> tuple[Tensor, list[BadSample], list[Sequence[int]]]:
        """Return metric sums `(4,)` over this rank's clips, and corrupt samples and predictions of all ranks."""
        sums = zero_metric_sums(self.plan.device)
        corrupt: list[BadSample] = []
        predictions: list[Tensor] = []
        videos, skip_bad_samples = len(self.plan.dataset.val), self.options.skip_bad_samples
        batches = self._read(videos, signals)
        for report in self.trainer.evaluate(epoch, videos, self.plan.base, batches, skip_bad_samples):
            sums += report.sums
            corrupt += report.corrupt
            predictions.append(report.predictions)
            for callback in self.callbacks:
                callback.on_val_step(report)
        return sums, self.dist.all_gather(corrupt), self.dist.all_gather(torch.cat(predictions).tolist())

    def _update_batchnorm(self, signals: SignalHandler) -> None:
        """Take precise statistics for the network that is validated, the EMA if there is one."""
        if not self.plan.batchnorm_clips:
            return
        started = time.monotonic()
        batches = self._read(self.plan.batchnorm_clips, signals)
        self.trainer.update_batchnorm(self.state.ema.ema_model, batches, self.dist)
        logger.info(
            "precise BatchNorm: %d clips, %.1f s", self.plan.batchnorm_clips, time.monotonic() - started
        )

    def _read(self, num_clips: int, signals: SignalHandler) -> Iterator[Chunks]:
        """Yield the next batches, of so many clips in the base shape, until a signal is received."""
        num_batches = -(-num_clips // self.plan.base.batch)
        for chunks in itertools.islice(self.loaders.clips, num_batches):
            signals.raise_if_requested(self.dist.sum_counts(*signals.received()))
            yield chunks

    def _after_step(self, report: StepReport) -> None:
        state, options = self.state, self.options
        state.step = report.step + 1
        state.sums += report.sums
        for callback in self.callbacks:
            callback.on_step(report)
        state.bad_samples += len(report.corrupt)
        # checked only after a new one, so that a resumed run whose files were repaired does not stop
        if report.corrupt and state.bad_samples > options.max_bad_samples * len(self.plan.dataset.train):
            raise CorruptSamplesError(
                f"epoch {report.epoch}: {state.bad_samples} clips of {len(self.plan.dataset.train)} are corrupt, "
                f"more than --max-bad-samples {options.max_bad_samples:g} allows; "
                f"{self.folder / 'bad_samples.csv'} lists them"
            )
        if state.step % options.log_interval == 0:
            self.trainer.check_finite()
