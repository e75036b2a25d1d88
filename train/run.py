"""A run: builds data, network and trainer from its options, and trains its epochs."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
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
from train.checkpointing.manager import CheckpointManager
from train.csv_log import truncate_results
from train.dry_run import PhaseSummary, check_sizes, format_summary, make_clip_flops, summarize_schedule
from train.engine import CorruptSamplesError, StepReport, TrainingError
from train.metrics import compute_metrics
from train.multigrid import Step
from train.optimizer import is_fine_tuning
from train.options import Options, resolve
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext
from train.preflight import check_disk, check_first_clips, check_same_videos
from train.run_folder import LogFile, exclusive_lock, find_resume_point, run_folder, write_run_json
from train.signals import SignalHandler, StoppedError

logger = logging.getLogger(__name__)


class Run:
    """A run from its options to its last epoch. The constructor raises for invalid input and writes nothing."""

    def __init__(self, spec: DatasetSpec, options: Options, dist: DistContext) -> None:
        torch.manual_seed(options.random_seed)
        self.dist = dist
        self.device, gpus = choose_device(options.gpus, dist, options.batch_size)
        options = resolve(spec, options, gpus)
        if options.tensorboard and find_spec("tensorboard") is None:
            raise ValueError("--tensorboard: needs the package tensorboard: pip install tensorboard")
        if options.compile and gpus > 1:
            raise ValueError(f"--compile: works on one GPU, not {gpus}; use --gpus 1")
        assert options.dataset is not None
        self.base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
        self.dataset = load_dataset(
            options.dataset,
            spec,
            variant=options.variant,
            labels=options.labels,
            num_classes=options.num_classes,
            max_missing=options.max_missing,
        )
        check_same_videos(self.dataset, dist)
        num_classes = len(self.dataset.classes)
        self.clip_flops = make_clip_flops(options, num_classes)
        self.schedule = make_schedule(options, len(self.dataset.train), self.clip_flops)
        shapes = self.schedule.shapes(options.end_epoch)
        check_sizes(shapes)
        self.folder = run_folder(spec, options)
        # read by the main process only, as other machines may not have the file
        path, checkpoint = dist.broadcast_object(
            find_resume_point(self.folder, options, spec, self.dataset)
            if dist.is_main_process
            else (None, None)
        )
        oom = f"{self.device}: out of memory while creating the network; is another process using the GPU?"
        with error_context(path) if path else nullcontext(), oom_as(OSError, oom):
            self.state = make_state(options, num_classes, self.device, dist, checkpoint)
        # a resumed run fine-tunes as it began
        fine_tune = is_fine_tuning(checkpoint["optimizer"]) if checkpoint else options.fine_tune
        channel_order = self.state.normalization.channel_order
        self.options = options = replace(options, channel_order=channel_order, fine_tune=fine_tune)
        with oom_as(OSError, oom):
            self.trainer = make_trainer(options, self.state, self.device, dist)
        self.checkpoints = CheckpointManager(
            folder=self.folder,
            options=options,
            dist=dist,
            trainer=self.trainer,
            state=self.state,
            metadata={
                "options": options.to_dict(),
                "classes": list(self.dataset.classes),
                "dataset": {"name": spec.name, **self.dataset.summary()},
            },
            last_checkpoint=path,
        )
        self.loaders = make_loaders(options, self.dataset, self.base, shapes, dist)
        self.callbacks: list[Callback] = []

    @property
    def is_complete(self) -> bool:
        return self.state.epochs_done >= self.options.end_epoch

    def describe(self) -> dict[str, Any]:
        """Return what `--dry-run` prints: the remaining steps of the next epoch, and the whole run's relative FLOPs."""
        epoch = self.state.epochs_done + 1
        steps = () if self.is_complete else self.schedule.epoch(epoch)
        return {
            "options": self.options.to_dict(),
            "dataset": self.dataset.summary(),
            "steps": [
                {"epoch": epoch, "step": n + 1, **steps[n].shape._asdict(), "lr": self._lr(epoch, n, steps)}
                for n in range(self.state.step, len(steps))
            ],
            "relative_flops": self._summarize_schedule()[1],
            "shared_memory_bytes": self.loaders.shared_memory,
        }

    def _lr(self, epoch: int, n: int, steps: Sequence[Step]) -> float:
        return self.trainer.lr_schedule.at(epoch, n, len(steps), steps[n].phase)

    def _summarize_schedule(self) -> tuple[list[PhaseSummary], float]:
        """Return the phases of the run, and its FLOPs relative to a run without cycles."""
        summaries = summarize_schedule(self.schedule, self.trainer.lr_schedule, self.clip_flops)
        clips = len(self.dataset.train) * self.options.end_epoch
        base_flops = clips * self.clip_flops(self.base.length, self.base.size)
        return summaries, sum(summary.flops for summary in summaries) / base_flops

    def train(self, log_file: LogFile) -> int:
        """Train the remaining epochs. Returns the exit code: 0, or 128 + n after signal n."""
        if not self.is_complete:
            check_first_clips(
                self.loaders.train_dataset, self.loaders.val_dataset, self.base, self.options.skip_bad_samples
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
        self.callbacks = make_callbacks(self.options, self.folder, self.state, self.device, self.dist)
        with SignalHandler() as signals:
            try:
                for epoch in range(epochs_done + 1, self.options.end_epoch + 1):
                    self._run_epoch(epoch, signals)
            except StoppedError as stopped:
                self.checkpoints.save("last")
                logger.warning("stopped in epoch %d; --resume-epoch auto resumes", self.state.epochs_done + 1)
                return 128 + stopped.signum
            except (CorruptSamplesError, LoaderError) as error:
                if self.dist.world_size == 1:  # saving is collective, and only some ranks failed
                    self.checkpoints.save("last")
                raise TrainingError(f"{error}; {self.checkpoints.resume_hint()}") from error
            finally:
                self.loaders.train.close()
                self.loaders.val.close()
                for callback in self.callbacks:
                    callback.close()
        return 0

    def _log_summary(self) -> None:
        options, dataset = self.options, self.dataset
        logger.info(
            "%s: %d classes, %d training and %d validation videos",
            *(options.dataset, len(dataset.classes), len(dataset.train), len(dataset.val)),
        )
        params = sum(parameter.numel() for parameter in self.state.network.parameters()) / 1e6
        logger.info("%s: %.2f M params, on %s in %s", options.network, params, self.device, options.precision)
        steps = sum(len(self.schedule.epoch(epoch)) for epoch in range(1, options.end_epoch + 1))
        megabytes = self.loaders.shared_memory / 1e6
        logger.info(
            "%d steps in %d epochs, up to %.0f MB of shared memory", steps, options.end_epoch, megabytes
        )
        if options.long_cycles or options.short_cycles:
            summaries, relative_flops = self._summarize_schedule()
            logger.info("FLOPs relative to a run without cycles: %.3f", relative_flops)
            for line in format_summary(summaries, self.schedule.phases):
                logger.info("%s", line)
        shard, batch = self.loaders.batch_sampler.shard, self.base.batch
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
        gates = GateMonitor(state.gate_names, self.device, dist)
        steps = self.schedule.epoch(epoch)
        self.loaders.batch_sampler.set_epoch(epoch, [step.shape for step in steps], first_step=state.step)
        for report in trainer.train_epoch(epoch, steps, self.loaders.train, first_step=state.step):
            speed.on_step(report)
            gates.on_step(report)
            should_save, num_corrupt, *received = dist.sum_counts(
                self.checkpoints.should_save(), len(report.corrupt), *signals.received()
            )
            # all ranks have to agree on when there are too many
            corrupt = dist.all_gather(report.corrupt) if num_corrupt else []
            self._after_step(report._replace(corrupt=corrupt))
            if should_save:
                self.checkpoints.save("last")
            signals.raise_if_requested(received)
        trainer.check_finite()
        val_started = time.monotonic()
        val_sums, val_corrupt = trainer.evaluate(
            self._until_stopped(self.loaders.val, signals), self.options.skip_bad_samples
        )
        val_corrupt = dist.all_gather(val_corrupt)
        if val_corrupt:
            logger.warning("validation skipped %d of %d videos", len(val_corrupt), len(self.dataset.val))
        epoch_report = EpochReport(
            epoch=epoch,
            lr=self._lr(epoch, len(steps) - 1, steps),
            train=compute_metrics(dist.all_reduce(state.sums)),
            val=compute_metrics(dist.all_reduce(val_sums)),
            train_seconds=val_started - started,
            val_seconds=time.monotonic() - val_started,
            data_time=speed.data_time,
            batches=Counter(step.shape for step in steps),
            throughput=speed.rates(),
            gates=gates.means(),
            val_corrupt=val_corrupt,
        )
        state.end_epoch()
        for callback in self.callbacks:  # rows before checkpoints: resuming drops rows without a checkpoint
            callback.on_epoch(epoch_report)
        self.checkpoints.save_epoch(epoch, epoch_report.val.top1)

    def _until_stopped(self, batches: Iterable[Batch], signals: SignalHandler) -> Iterator[Batch]:
        for batch in batches:
            signals.raise_if_requested(self.dist.sum_counts(*signals.received()))
            yield batch

    def _after_step(self, report: StepReport) -> None:
        state, options = self.state, self.options
        state.step = report.step + 1
        state.sums += report.sums
        for callback in self.callbacks:
            callback.on_step(report)
        state.bad_samples += len(report.corrupt)
        # checked only after a new one, so that a resumed run whose files were repaired does not stop
        if report.corrupt and state.bad_samples > options.max_bad_samples * len(self.dataset.train):
            raise CorruptSamplesError(
                f"epoch {report.epoch}: {state.bad_samples} clips of {len(self.dataset.train)} are corrupt, "
                f"more than --max-bad-samples {options.max_bad_samples:g} allows; "
                f"{self.folder / 'bad_samples.csv'} lists them"
            )
        if state.step % options.log_interval == 0:
            self.trainer.check_finite()
