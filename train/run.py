"""Wires a run: options to data, network and loop, and its epochs. The only place that sees all of them."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from logging.handlers import MemoryHandler
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from data.batch_sampler import BatchShape
from data.clip_loader import LoaderError
from data.common.atomic_io import remove_leftovers
from data.datasets import DatasetSpec
from data.video_iterator import Batch
from data.video_list import load_dataset
from train.builders import make_callbacks, make_loaders, make_schedule, make_state, make_trainer
from train.callbacks import Callback, EpochReport, GateMonitor, SpeedMonitor
from train.checkpointing.checkpoint import archive_newer, error_context
from train.checkpointing.manager import CheckpointManager, DiskFullGuard
from train.csv_log import cut_results
from train.dry_run import PhaseRow, check_sizes, describe_rows, describe_steps, flops_of, phase_rows
from train.engine import StepReport, TrainingError, UnreadableClipsError
from train.metrics import averages
from train.optimizer import MOMENTS, fine_tunes
from train.options import Options, resolve
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext
from train.preflight import (
    check_disk,
    check_labels,
    check_same_videos,
    check_training_clips,
    check_validation_clip,
    checkpoint_bytes,
)
from train.run_folder import claimed, find_resume_point, logged_to, run_folder, write_run_json
from train.signals import SignalHandler, StoppedError

logger = logging.getLogger(__name__)


class Run:
    """One run, from its options to its last epoch. What is wrong with the input shows when it is made."""

    def __init__(self, spec: DatasetSpec, options: Options, dist: DistContext) -> None:
        torch.manual_seed(options.random_seed)
        self.dist = dist
        self.device, gpus = choose_device(options.gpus, dist, options.batch_size)
        self.options = options = resolve(spec, options, gpus)
        if options.tensorboard and find_spec("tensorboard") is None:
            raise ValueError("--tensorboard: needs the package tensorboard: pip install tensorboard")
        if options.compile and options.gpus > 1:
            raise ValueError(f"--compile: works on one GPU, not {options.gpus}; --gpus 1 chooses one")
        self.base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
        self.dataset = load_dataset(
            options.dataset,
            spec,
            variant=options.variant,
            labels=options.labels,
            num_classes=options.num_classes,
            max_missing=options.max_missing,
        )
        check_labels(self.dataset)
        check_same_videos(self.dataset, dist)
        self.operations = flops_of(options, len(self.dataset.classes))
        self.schedule = make_schedule(options, len(self.dataset.train), self.operations)
        self.shapes = self.schedule.shapes(options.end_epoch)
        check_sizes(self.shapes)
        self.folder = run_folder(spec, options)
        self.disk = DiskFullGuard(self.folder, goes_on=options.on_full_disk == "continue")
        # one process reads, so that all go on from the same file, which other machines may not even see
        start = dist.broadcast_object(
            find_resume_point(self.folder, options, spec, self.dataset) if dist.is_main_process else None
        )
        self.disk.last_good = start and start.path
        classes = len(self.dataset.classes)
        short = f"{self.device}: has too little memory left for the network; does something else run there?"
        with error_context(start.path) if start else nullcontext(), oom_as(OSError, short):
            self.state = make_state(options, classes, self.device, dist, start and start.content)
        self.callbacks: list[Callback] = []
        # what the weights began with, also where this command leaves it out
        began = fine_tunes(start.content["optimizer"]) if start else options.fine_tune
        order = self.state.normalization.channel_order
        self.options = options = replace(options, channel_order=order, fine_tune=began)
        with oom_as(OSError, short):
            self.trainer = make_trainer(options, self.state, self.device, dist)
        self.saver = CheckpointManager(
            folder=self.folder,
            options=options,
            dist=dist,
            disk=self.disk,
            trainer=self.trainer,
            state=self.state,
            callbacks=self.callbacks,
            constant={
                "options": options.plain(),
                "classes": list(self.dataset.classes),
                "dataset": {"name": spec.name, **self.dataset.summary()},
            },
        )
        self.loaders = make_loaders(options, self.dataset, self.base, self.shapes, dist)

    def plan(self) -> dict[str, Any]:
        """What `--dry-run` prints: the steps that are left of the first epoch to train, the ratio of the whole run."""
        epoch = self.state.epochs_done + 1
        steps = self.schedule.epoch(epoch) if epoch <= self.options.end_epoch else ()
        described = describe_steps(steps, epoch, self.trainer.learning_rate)
        return {
            "options": self.options.plain(),
            "dataset": self.dataset.summary(),
            "steps": described[self.state.step :],
            "compute_ratio": self._compute_ratio(self._phase_rows()),
            "shared_memory_bytes": self.loaders.shared_memory,
        }

    def _phase_rows(self) -> list[PhaseRow]:
        return phase_rows(self.schedule, self.trainer.learning_rate, self.operations)

    def _compute_ratio(self, rows: Sequence[PhaseRow]) -> float:
        clips = len(self.dataset.train) * self.options.end_epoch
        return sum(row.operations for row in rows) / (clips * self.operations(*self.base[1:]))

    def train(self, early: MemoryHandler) -> int:
        """All epochs that are left; the exit status: 0, or 128 and the signal that stopped it.

        What `early` has kept of the log begins the run's own.
        """
        if self.state.epochs_done >= self.options.end_epoch:
            # a kill at the very end has left what nobody else comes to tidy up
            if self.dist.is_main_process and self.folder.is_dir():
                with claimed(self.folder):
                    remove_leftovers(self.folder)
                    self.saver.repair_epoch_checkpoint()
            logger.info("%s: the run is complete, %d epochs are done", self.folder, self.state.epochs_done)
            return 0
        self._preflight()
        if not self.dist.is_main_process:
            return self._train()
        self.folder.mkdir(parents=True, exist_ok=True)
        log_file = self.options.log_file or self.folder / "train.log"
        with (
            claimed(self.folder),
            logged_to(log_file, early),
            logging_redirect_tqdm(),
            self.dist.explained(),
        ):
            return self._train()

    def _preflight(self) -> None:
        options = self.options
        check_training_clips(self.loaders.train.dataset, self.base)
        if not options.skip_bad_samples:
            check_validation_clip(self.loaders.val.dataset, self.base)
        if self.dist.is_main_process:
            epochs = range(self.state.epochs_done + 1, options.end_epoch + 1)
            kept = sum(map(self.saver.keeps, epochs)) + 2  # the last and the best
            moments, averaged = MOMENTS[self.options.optimizer], bool(self.options.ema)
            size = checkpoint_bytes(self.state.network, moments=moments, averaged=averaged)
            check_disk(self.folder, size, kept, goes_on=self.disk.goes_on)

    def _train(self) -> int:
        options, first = self.options, self.state.epochs_done + 1
        if self.dist.is_main_process:
            self._tidy_up(first)
            self._announce()
        self.saver.repair_epoch_checkpoint()
        self.saver.keep_best()
        gate_names = self.state.network.gate_names
        self.callbacks += make_callbacks(options, self.folder, first, gate_names, self.device, self.dist)
        with SignalHandler() as stop:
            try:
                for epoch in range(first, options.end_epoch + 1):
                    self._run_epoch(epoch, stop)
            except StoppedError as stopped:
                if self.saver.save_last():
                    epoch = self.state.epochs_done + 1
                    logger.warning("stopped in epoch %d; --resume-epoch auto goes on from there", epoch)
                return 128 + stopped.number
            except (UnreadableClipsError, LoaderError) as error:
                if self.dist.size == 1:  # several would have to save together, and only some have failed
                    self.saver.save_last()
                good = self.disk.last_good
                raise TrainingError(
                    f"{error}; --resume-epoch auto goes on from {good}" if good else str(error)
                ) from error
            finally:
                self.loaders.train.close()
                self.loaders.val.close()
                for callback in self.callbacks:
                    callback.close()
        return 0

    def _tidy_up(self, first: int) -> None:
        """Leave nothing in the folder that is later than the start, or that a killed run did not finish."""
        remove_leftovers(self.folder)
        if first > 1:
            archive_newer(self.folder, self.options.network, self.state.epochs_done, self.state.step)
        cut_results(self.folder, first)
        write_run_json(self.folder, self.options, self.saver.constant["dataset"])

    def _announce(self) -> None:
        options, dataset, network = self.options, self.dataset, self.state.network
        videos = (len(dataset.train), len(dataset.val))
        parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        megabytes = self.loaders.shared_memory / 1e6
        logger.info(
            "%s: %d classes, %d training and %d validation videos",
            *(options.dataset, len(dataset.classes), *videos),
        )
        logger.info(
            "%s: %.2f million parameters, on %s in %s",
            *(options.network, parameters, self.device, options.precision),
        )
        steps = sum(len(self.schedule.epoch(epoch)) for epoch in range(1, options.end_epoch + 1))
        logger.info(
            "%d steps in %d epochs, up to %.0f MB of shared memory", steps, options.end_epoch, megabytes
        )
        if options.long_cycles or options.short_cycles:
            rows = self._phase_rows()
            logger.info("operations of the run to those without cycles: %.3f", self._compute_ratio(rows))
            for line in describe_rows(rows, self.schedule.phases):
                logger.info("%s", line)
        part = self.loaders.plan.part
        if part.size > 1:
            num_participants, largest = part.num_participants(self.base.batch), part.largest(self.base.batch)
            logger.info("%d processes, up to %d of %d clips each", part.size, largest, self.base.batch)
            if num_participants < part.size:
                idle = "--batch-size %d: %d of %d processes have nothing to do in a step"
                logger.warning(idle, self.base.batch, part.size - num_participants, part.size)
        elif options.sync_batchnorm:
            logger.warning(
                "--sync-batchnorm: one process has nothing to synchronise with; torchrun starts several"
            )

    def _run_epoch(self, epoch: int, stop: SignalHandler) -> None:
        started = time.monotonic()
        state, trainer, dist = self.state, self.trainer, self.dist
        waited, speeds = 0.0, SpeedMonitor()
        gates = GateMonitor(state.network.gate_names, self.device, dist)
        steps = self.schedule.epoch(epoch)
        self.loaders.plan.set_epoch(epoch, [step.shape for step in steps], first_step=state.step)
        for report in trainer.train_epoch(epoch, steps, self.loaders.train, first_step=state.step):
            waited += report.waited
            speeds.on_step(report)
            gates.on_step(report)
            save_is_due, bad, *asked = dist.add(self.saver.is_due(), len(report.bad), *stop.asked())
            # one process's bad samples are everybody's, as all have to stop at too many
            self._after_step(report._replace(bad=dist.gather(report.bad)) if bad else report)
            if save_is_due:
                self.saver.save_last()
            stop.obey(asked)
        trainer.check_finite()
        validating = time.monotonic()
        val_sums, unread = trainer.validate(
            self._until_stopped(self.loaders.val, stop), self.options.skip_bad_samples
        )
        (left_out,) = dist.add(len(unread))
        if left_out:
            unread = dist.gather(unread)
            logger.warning("validation left out %d of %d videos", left_out, len(self.dataset.val))
        last = len(steps) - 1
        report = EpochReport(
            epoch=epoch,
            learning_rate=trainer.learning_rate.at(epoch, last, last + 1, steps[last].phase),
            train=averages(dist.sum(state.sums)),
            val=averages(dist.sum(val_sums)),
            train_seconds=validating - started,
            val_seconds=time.monotonic() - validating,
            waited_seconds=waited,
            batches=Counter(step.shape for step in steps),
            speeds=speeds.rates(),
            gates=gates.means(),
            unread=unread,
        )
        state.end_epoch()
        for callback in self.callbacks:  # the rows first: resuming drops those that no checkpoint has
            with self.disk.met():
                callback.on_epoch(report)
        self.saver.save_epoch(epoch, report.val.top1)

    def _until_stopped(self, batches: Iterable[Batch], stop: SignalHandler) -> Iterator[Batch]:
        for batch in batches:
            stop.obey(self.dist.add(*stop.asked()))
            yield batch

    def _after_step(self, report: StepReport) -> None:
        state, options = self.state, self.options
        state.step = report.step + 1
        state.sums += report.sums
        for callback in self.callbacks:
            with self.disk.met():
                callback.on_step(report)
        state.bad_samples += len(report.bad)
        # only where there is another one: a run that goes on after they were mended is not stopped by old ones
        if report.bad and state.bad_samples > options.max_bad_samples * len(self.dataset.train):
            raise UnreadableClipsError(
                f"epoch {report.epoch}: {state.bad_samples} clips of {len(self.dataset.train)} could not be read, "
                f"more than --max-bad-samples {options.max_bad_samples:g} allows; "
                f"{self.folder / 'bad_samples.csv'} names them"
            )
        if state.step % options.log_interval == 0:
            self.trainer.check_finite()
