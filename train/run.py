"""Wires a run: options to data, network and loop, and its epochs. The only place that sees all of them."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import coloredlogs
import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from data.batching import BatchShape
from data.datasets import DatasetSpec
from data.labels import open_dataset
from data.video_iterator import fitting_prefetch, shared_memory_bytes
from network import create_network
from train.build import make_callbacks, make_loaders, make_trainer
from train.callbacks import Callback, EpochReport, cut_results
from train.checkpoint import best_path, epoch_path, last_path, save_checkpoint, set_aside_later
from train.devices import choose_gpus
from train.interrupt import StoppedError, StopRequest
from train.loop import StepReport, TrainingError
from train.metrics import averages
from train.multigrid import plan_epoch
from train.normalisation import Normalisation
from train.options import Options, network_choices, parse_options
from train.plan import check_sizes, compute_ratio, describe_steps
from train.results import find_start, kept_log, logged_to, results_folder, write_run_file
from train.state import TrainingState, new_state, resumed_state

logger = logging.getLogger(__name__)


def main(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> int:
    """Train as the command line says. Bad input ends with status 2 and one line, a run that cannot go on with 1."""
    options = parse_options(spec, defaults, argv, prog)
    level = "DEBUG" if options.debug_mode else "INFO"
    coloredlogs.install(level=level, fmt="%(asctime)s %(levelname)s %(message)s")
    try:
        with kept_log() as early:
            run = Run(spec, options)
            if options.dry_run:
                print(json.dumps(run.plan(), indent=1))
                return 0
            return run.train(early)
    except KeyboardInterrupt:
        print(f"{prog or Path(sys.argv[0]).name}: stopped before the first step", file=sys.stderr)
        return 130
    except (ValueError, LookupError, OSError, TrainingError) as error:
        if options.debug_mode:
            raise
        message = " ".join(str(error).split())
        print(f"{prog or Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2


def resolve(spec: DatasetSpec, options: Options, gpus: int) -> Options:
    """Options with every default that depends on the data set or the machine filled in."""
    return replace(
        options,
        network=options.network.lower(),
        gpus=gpus,
        num_classes=options.num_classes or spec.num_classes.get(options.variant),
        precision=options.precision or ("fp16" if gpus else "fp32"),
        flip=spec.flip if options.flip is None else options.flip,
        short_side=options.short_side or spec.short_side,
    )


class Run:
    """One run, from its options to its last epoch. What is wrong with the input shows when it is made."""

    def __init__(self, spec: DatasetSpec, options: Options) -> None:
        torch.manual_seed(options.random_seed)
        self.options = options = resolve(spec, options, choose_gpus(options.gpus))
        if options.compile and options.gpus > 1:
            raise ValueError(f"--compile: works on one GPU, not {options.gpus}; --gpus 1 chooses one")
        self.device = torch.device("cuda", 0) if options.gpus else torch.device("cpu")
        self.base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
        self.dataset = open_dataset(
            options.dataset,
            spec,
            variant=options.variant,
            labels=options.labels,
            num_classes=options.num_classes,
            max_missing=options.max_missing,
        )
        self.steps = plan_epoch(
            len(self.dataset.train),
            self.base,
            long_cycles=options.long_cycles,
            short_cycles=options.short_cycles,
        )
        check_sizes(self.steps)
        self.folder = results_folder(spec, options)
        self.state = self._make_state()
        self.normalisation = Normalisation(channel_order=options.channel_order)
        self.trainer = make_trainer(options, self.state, self.normalisation, self.device)
        self.prefetch = fitting_prefetch(self._shapes(), options.workers)
        pin_memory = self.device.type == "cuda"
        self.loaders = make_loaders(
            options, self.dataset, self.base, prefetch=self.prefetch, pin_memory=pin_memory
        )

    def _make_state(self) -> TrainingState:
        options = self.options
        network = create_network(options.network, len(self.dataset.classes), **network_choices(options))
        scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        checkpoint = find_start(self.folder, options, self.dataset)
        factor = {"fine_tune_factor": options.fine_tune_factor}
        if checkpoint is not None:
            return resumed_state(network, scaler, self.device, checkpoint=checkpoint, **factor)
        weights = {"weights": options.pretrained_3d, "fine_tune": options.fine_tune}
        return new_state(network, scaler, self.device, **weights, **factor)

    def plan(self) -> dict[str, Any]:
        """What `--dry-run` prints."""
        choices = network_choices(self.options)
        classes = len(self.dataset.classes)
        return {
            "options": self.options.plain(),
            "dataset": self.dataset.summary(),
            "steps": describe_steps(self.steps, self.state.epochs_done + 1, self.trainer.learning_rate),
            "compute_ratio": compute_ratio(self.steps, self.base, self.options.network, classes, choices),
            "shared_memory_bytes": self.shared_memory(),
        }

    def shared_memory(self) -> int:
        """Bytes of it that the loaders hold at most."""
        return shared_memory_bytes(self._shapes(), self.options.workers, self.prefetch)

    def _shapes(self) -> list[BatchShape]:
        return [*(step.shape for step in self.steps), self.base]

    def train(self, early: MemoryHandler) -> int:
        """All epochs that are left; the exit status: 0, or 128 and the signal that stopped it.

        What `early` has kept of the log begins the run's own.
        """
        if self.state.epochs_done >= self.options.end_epoch:
            logger.info("%s: the run is complete, %d epochs are done", self.folder, self.state.epochs_done)
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        log_file = self.options.log_file or self.folder / "train.log"
        with logged_to(log_file, early), logging_redirect_tqdm():
            return self._train()

    def _train(self) -> int:
        first = self.state.epochs_done + 1
        if first > 1:
            set_aside_later(self.folder, self.options.network, self.state.epochs_done, self.state.step)
        cut_results(self.folder, first)
        write_run_file(self.folder, self.options, self.dataset.summary())
        self._announce()
        gate_names = self.state.network.gate_names
        callbacks = make_callbacks(self.options, self.folder, first, gate_names, self.device)
        self.saved_at = time.monotonic()
        with StopRequest() as stop:
            try:
                for epoch in range(first, self.options.end_epoch + 1):
                    self._run_epoch(epoch, callbacks, stop)
            except StoppedError:
                self._save(last_path(self.folder, self.options.network))
                stopped = self.state.epochs_done + 1
                logger.warning("stopped in epoch %d; --resume-epoch auto goes on from there", stopped)
                return 128 + stop.signal
            finally:
                for callback in callbacks:
                    callback.close()
        return 0

    def _announce(self) -> None:
        options, dataset, network = self.options, self.dataset, self.state.network
        videos = (len(dataset.train), len(dataset.val))
        parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        megabytes = self.shared_memory() / 1e6
        logger.info(
            "%s: %d classes, %d training and %d validation videos",
            *(options.dataset, len(dataset.classes), *videos),
        )
        logger.info(
            "%s: %.2f million parameters, on %s in %s",
            *(options.network, parameters, self.device, options.precision),
        )
        logger.info(
            "%d steps an epoch, %d epochs, up to %.0f MB of shared memory",
            *(len(self.steps), options.end_epoch, megabytes),
        )

    def _run_epoch(self, epoch: int, callbacks: Sequence[Callback], stop: StopRequest) -> None:
        started = time.monotonic()
        state, trainer = self.state, self.trainer
        self.loaders.plan.set_epoch(epoch, [step.shape for step in self.steps], first_step=state.step)
        for report in trainer.train_epoch(epoch, self.steps, self.loaders.train, first_step=state.step):
            self._after_step(report, callbacks)
            stop.check()
        trainer.check_finite()
        validating = time.monotonic()
        val_sums, unread = trainer.validate(stop.watch(self.loaders.val), self.options.skip_bad_samples)
        if unread:
            logger.warning("validation left out %d of %d videos", len(unread), len(self.dataset.val))
        last = len(self.steps) - 1
        report = EpochReport(
            epoch=epoch,
            learning_rate=trainer.learning_rate.at(epoch, last, last + 1, self.steps[last].phase),
            train=averages(state.sums),
            val=averages(val_sums),
            train_seconds=validating - started,
            val_seconds=time.monotonic() - validating,
        )
        state.end_epoch()
        for callback in callbacks:  # the rows first: resuming drops those that no checkpoint has
            callback.on_epoch(report)
        self._save_epoch(report)

    def _after_step(self, report: StepReport, callbacks: Sequence[Callback]) -> None:
        state, options = self.state, self.options
        state.step = report.step + 1
        state.sums += report.sums
        for callback in callbacks:
            callback.on_step(report)
        state.bad_samples += len(report.bad)
        if state.bad_samples > options.max_bad_samples * len(self.dataset.train):
            raise TrainingError(
                f"epoch {report.epoch}: {state.bad_samples} clips of {len(self.dataset.train)} could not be read, "
                f"more than --max-bad-samples {options.max_bad_samples:g} allows; "
                f"{self.folder / 'bad_samples.csv'} names them"
            )
        if state.step % options.log_interval == 0:
            self.trainer.check_finite()
        if options.save_minutes and time.monotonic() - self.saved_at > 60 * options.save_minutes:
            self._save(last_path(self.folder, options.network))

    def _save_epoch(self, report: EpochReport) -> None:
        is_best = report.val.top1 > self.state.best_top1
        if is_best:
            self.state.best_top1 = report.val.top1
        options = self.options
        if report.epoch % options.save_frequency == 0 or report.epoch == options.end_epoch:
            self._save(epoch_path(self.folder, options.network, report.epoch))
        if is_best:
            self._save(best_path(self.folder, options.network))

    def _save(self, path: Path) -> None:
        """A checkpoint: everything needed to continue, to evaluate and to predict (see train.checkpoint)."""
        self.trainer.check_finite()  # weights after a loss that is no number are worth nothing
        content = {
            **self.state.content(),
            "options": self.options.plain(),
            "classes": list(self.dataset.classes),
            "normalisation": self.normalisation.plain(),
            "dataset": self.dataset.summary(),
        }
        save_checkpoint(path, content)
        self.saved_at = time.monotonic()
        logger.info("saved %s", path)
