"""Wires a run: options to data, network and loop. The only place that sees all of them."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import coloredlogs
import torch
from humanfriendly.terminal import terminal_supports_colors
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from data.batching import BatchShape, TrainingBatches, ValidationBatches
from data.datasets import DatasetSpec
from data.labels import open_dataset
from data.video_iterator import TrainingClips, ValidationClips, make_loader, shared_memory_bytes
from network import create_network
from network.weights import load_matching, read_tensors_file, state_dict_of
from train.callbacks import (
    AccuracyMonitor,
    BadSampleLog,
    Callback,
    EpochReport,
    GateMonitor,
    Monitor,
    ProgressLog,
    ResultsTable,
    ShapeMonitor,
    SpeedMonitor,
    TensorBoardLog,
    cut_results,
)
from train.checkpoint import best_path, epoch_path, last_path, save_checkpoint
from train.devices import Replicas, choose_gpus
from train.interrupt import StoppedError, StopRequest
from train.loop import StepReport, Trainer, TrainingError
from train.lr_scheduler import LearningRate
from train.metrics import averages, zero_sums
from train.multigrid import plan_epoch
from train.normalisation import Normalisation
from train.optimiser import make_optimiser, parameter_roles, restore_optimiser, saved_roles
from train.options import Options, network_choices, parse_options
from train.plan import check_sizes, compute_ratio, describe_steps
from train.results import find_start, logged_to, results_folder, write_run_file

logger = logging.getLogger(__name__)


def main(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> int:
    """Train as the command line says. Bad input ends with status 2 and one line, a run that cannot go on with 1."""
    options = parse_options(spec, defaults, argv, prog)
    level = "DEBUG" if options.debug_mode else "INFO"
    coloredlogs.install(level=level, fmt="%(asctime)s %(levelname)s %(message)s")
    try:
        run = Run(spec, options)
        if options.dry_run:
            print(json.dumps(run.plan(), indent=1))
            return 0
        return run.train()
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
        gpus = choose_gpus(options.gpus)
        self.options = options = resolve(spec, options, gpus)
        self.device = torch.device("cuda", 0) if gpus else torch.device("cpu")
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
        self.network = create_network(options.network, len(self.dataset.classes), **network_choices(options))
        self.network.to(self.device)
        self.folder = results_folder(spec, options)
        self._start_from(find_start(self.folder, options, self.dataset.classes))
        self.trainer = self._make_trainer(gpus)
        self._make_loaders()

    def _start_from(self, checkpoint: dict[str, Any] | None) -> None:
        """Weights, momentum and place in the run: of the checkpoint, or of weights to start from, or new ones."""
        options = self.options
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        if checkpoint is None:
            self.epochs_done, self.step = 0, 0
            self.sums = zero_sums(self.device)
            self.best_top1 = -1.0
            self.bad_samples = 0
            roles = parameter_roles(self.network, self._load_pretrained(), options.fine_tune)
            self.optimiser = make_optimiser(self.network, roles, options.fine_tune_factor)
            return
        try:
            self.network.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise ValueError(f"the checkpoint does not fit {options.network}: {error}") from None
        self.epochs_done, self.step = checkpoint["epoch"], checkpoint["step"]
        self.sums = torch.tensor(checkpoint["metrics"]["sums"], dtype=torch.float64, device=self.device)
        self.best_top1 = checkpoint["metrics"]["best_top1"]
        self.bad_samples = checkpoint["metrics"]["bad_samples"]
        roles = saved_roles(checkpoint["optimiser"])
        self.optimiser = make_optimiser(self.network, roles, options.fine_tune_factor)
        restore_optimiser(self.optimiser, checkpoint["optimiser"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        torch.set_rng_state(checkpoint["generators"]["cpu"])

    def _load_pretrained(self) -> list[str]:
        """The names that the weights filled."""
        path = self.options.pretrained_3d
        if path is None:
            return []
        report = load_matching(self.network, state_dict_of(read_tensors_file(path), path), path)
        logger.info("%s: %s", path, report)
        return report.loaded

    def _make_trainer(self, gpus: int) -> Trainer:
        options = self.options
        network: nn.Module = torch.compile(self.network) if options.compile else self.network
        self.normalisation = Normalisation(channel_order=options.channel_order)
        return Trainer(
            network=Replicas(network, gpus) if gpus > 1 else network,
            optimiser=self.optimiser,
            scaler=self.scaler,
            learning_rate=LearningRate(
                base=options.lr_base,
                schedule=options.lr_schedule,
                steps=options.lr_steps,
                factor=options.lr_factor,
                end_epoch=options.end_epoch,
                warmup_epochs=options.warmup_epochs,
            ),
            normalisation=self.normalisation,
            device=self.device,
            precision=options.precision,
            clip_gradient=options.clip_gradient,
            watch_gates=bool(options.gates),
        )

    def _make_loaders(self) -> None:
        options = self.options
        training = TrainingClips(
            self.dataset.train,
            intervals=options.train_frame_interval,
            base_length=options.clip_length,
            clip_size=options.clip_size,
            short_side=options.short_side,
            augment=options.augment,
            flip=options.flip,
            frame_sampling=options.frame_sampling,
        )
        validation = ValidationClips(
            self.dataset.val, interval=options.val_frame_interval, short_side=options.short_side
        )
        self.batches = TrainingBatches(len(training), options.random_seed)
        val_batches = ValidationBatches(len(validation), self.base)
        workers = {"workers": options.workers, "pin_memory": self.device.type == "cuda"}
        self.train_loader = make_loader(training, self.batches, **workers)
        self.val_loader = make_loader(validation, val_batches, **workers)

    def plan(self) -> dict[str, Any]:
        """What `--dry-run` prints."""
        rate = self.trainer.learning_rate
        choices = network_choices(self.options)
        classes = len(self.dataset.classes)
        return {
            "options": self.options.plain(),
            "dataset": self.dataset.summary(),
            "steps": describe_steps(self.steps, self.epochs_done + 1, rate),
            "compute_ratio": compute_ratio(self.steps, self.base, self.options.network, classes, choices),
            "shared_memory_bytes": self.shared_memory(),
        }

    def shared_memory(self) -> int:
        shapes = [step.shape for step in self.steps]
        return shared_memory_bytes([*shapes, self.base], self.options.workers)

    def train(self) -> int:
        """All epochs that are left; the exit status: 0, or 128 and the signal that stopped it."""
        if self.epochs_done >= self.options.end_epoch:
            logger.info("%s: the run is complete, %d epochs are done", self.folder, self.epochs_done)
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        with logged_to(self.options.log_file or self.folder / "train.log"), logging_redirect_tqdm():
            return self._train()

    def _train(self) -> int:
        cut_results(self.folder, self.epochs_done + 1)
        write_run_file(self.folder, self.options, self.dataset.summary())
        self._announce()
        callbacks = self._make_callbacks()
        self.saved_at = time.monotonic()
        with StopRequest() as stop:
            try:
                for epoch in range(self.epochs_done + 1, self.options.end_epoch + 1):
                    self._run_epoch(epoch, callbacks, stop)
            except StoppedError:
                self._save(last_path(self.folder, self.options.network))
                logger.warning(
                    "stopped in epoch %d; --resume-epoch auto goes on from there", self.epochs_done + 1
                )
                return 128 + stop.signal
            finally:
                for callback in callbacks:
                    callback.close()
        return 0

    def _run_epoch(self, epoch: int, callbacks: Sequence[Callback], stop: StopRequest) -> None:
        started = time.monotonic()
        self.batches.set_epoch(epoch, [step.shape for step in self.steps], first_step=self.step)
        for report in self.trainer.train_epoch(epoch, self.steps, self.train_loader, first_step=self.step):
            self._after_step(report, callbacks)
            stop.check()
        self.trainer.check_finite()
        validating = time.monotonic()
        val_sums = self._validate(stop)
        last = len(self.steps) - 1
        report = EpochReport(
            epoch=epoch,
            learning_rate=self.trainer.learning_rate.at(epoch, last, last + 1, self.steps[last].phase),
            train=averages(self.sums),
            val=averages(val_sums),
            train_seconds=validating - started,
            val_seconds=time.monotonic() - validating,
        )
        self.epochs_done, self.step, self.bad_samples = epoch, 0, 0
        self.sums = torch.zeros_like(self.sums)
        for callback in callbacks:
            callback.on_epoch(report)
        self._save_epoch(report)

    def _after_step(self, report: StepReport, callbacks: Sequence[Callback]) -> None:
        self.step = report.step + 1
        self.sums += report.sums
        for callback in callbacks:
            callback.on_step(report)
        self.bad_samples += len(report.bad)
        if self.bad_samples > self.options.max_bad_samples * len(self.dataset.train):
            raise TrainingError(
                f"epoch {report.epoch}: {self.bad_samples} clips of {len(self.dataset.train)} could not be read, "
                f"more than --max-bad-samples {self.options.max_bad_samples:g} allows; "
                f"{self.folder / 'bad_samples.csv'} names them"
            )
        if self.step % self.options.log_interval == 0:
            self.trainer.check_finite()
        if self.options.save_minutes and time.monotonic() - self.saved_at > 60 * self.options.save_minutes:
            self._save(last_path(self.folder, self.options.network))

    def _validate(self, stop: StopRequest) -> torch.Tensor:
        sums, bad = self.trainer.validate(stop.watch(self.val_loader), self.options.skip_bad_samples)
        if bad:
            logger.warning(
                "validation left out %d of %d videos that could not be read", len(bad), len(self.dataset.val)
            )
        return sums

    def _save_epoch(self, report: EpochReport) -> None:
        is_best = report.val.top1 > self.best_top1
        if is_best:
            self.best_top1 = report.val.top1
        options = self.options
        if report.epoch % options.save_frequency == 0 or report.epoch == options.end_epoch:
            self._save(epoch_path(self.folder, options.network, report.epoch))
        if is_best:
            self._save(best_path(self.folder, options.network))

    def _save(self, path: Path) -> None:
        self.trainer.check_finite()  # weights after a loss that is no number are worth nothing
        save_checkpoint(path, self._content())
        self.saved_at = time.monotonic()
        logger.info("saved %s", path)

    def _content(self) -> dict[str, Any]:
        """A checkpoint: everything needed to continue, to evaluate and to predict (see train.checkpoint)."""
        metrics = {"sums": self.sums.tolist(), "best_top1": self.best_top1, "bad_samples": self.bad_samples}
        return {
            "state_dict": self.network.state_dict(),
            "epoch": self.epochs_done,
            "step": self.step,
            "options": self.options.plain(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": {"cpu": torch.get_rng_state()},
            "metrics": metrics,
            "classes": list(self.dataset.classes),
            "normalisation": self.normalisation.plain(),
            "dataset": self.dataset.summary(),
        }

    def _announce(self) -> None:
        options, summary = self.options, self.dataset.summary()
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        logger.info(
            "%s: %d classes, %d training and %d validation videos",
            options.dataset,
            summary["classes"],
            summary["train"]["videos"],
            summary["val"]["videos"],
        )
        logger.info(
            "%s: %.2f million parameters, on %s in %s",
            options.network,
            parameters / 1e6,
            self.device,
            options.precision,
        )
        logger.info(
            "%d steps an epoch, %d epochs, up to %.0f MB of shared memory",
            len(self.steps),
            options.end_epoch,
            self.shared_memory() / 1e6,
        )

    def _make_callbacks(self) -> list[Callback]:
        options = self.options
        monitors: list[Monitor] = [
            AccuracyMonitor(self.device),
            SpeedMonitor(coloured=terminal_supports_colors(sys.stderr)),
            ShapeMonitor(),
        ]
        if options.gates:
            monitors.append(GateMonitor(self.network.gate_names))
        callbacks: list[Callback] = [
            BadSampleLog(self.folder / "bad_samples.csv"),
            ProgressLog(monitors, options.log_interval, options.end_epoch),
            ResultsTable(self.folder, self.epochs_done + 1),
        ]
        if options.tensorboard:
            callbacks.append(TensorBoardLog(self.folder))
        return callbacks
