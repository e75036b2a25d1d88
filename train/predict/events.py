"""What is known of a video while it is read: its windows, and its events, stretches of time of one class."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from train.predict.predictor import ClassScore, WindowPrediction, topk_classes

Windows = Iterable[WindowPrediction]
CSV_HEADER = "video,part,start,end,class,probability\n"


class Event(NamedTuple):
    """A stretch of a video, in seconds, and its class with the mean probability of the windows in it."""

    start: float
    end: float
    score: ClassScore


def find_events(windows: Windows, classes: Sequence[str], threshold: float) -> Iterator[Event]:
    """Join consecutive windows whose most probable class is the same, with a probability of at least `threshold`.

    An event lasts from its first window to its last; where windows of two classes overlap, events meet in the middle.
    """
    event: Event | None = None
    count, previous_end = 0, 0.0
    for window in windows:
        (score,) = topk_classes(window.probabilities, classes, 1)
        start, end = window.seconds.tolist()
        start, previous_end = max(start, (previous_end + start) / 2), end
        if event and (score.label != event.score.label or score.probability < threshold):
            yield event._replace(end=min(event.end, start))
            event = None
        if score.probability >= threshold:
            event, count = event or Event(start, end, score), count + 1 if event else 1
            mean = event.score.probability + (score.probability - event.score.probability) / count
            event = Event(event.start, end, ClassScore(score.label, mean))
    if event:
        yield event


def open_text(path: Path | str | None) -> IO[str]:
    """Open a file (-: standard output) that has each line at once, as a stream may last for days; None: nothing."""
    target = os.dup(1) if path == "-" else Path(path or os.devnull)
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
    return open(target, "w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)


def clock_time(seconds: float) -> str:
    """Return a time as `00:01:02.345`."""
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds / 1000:06.3f}"


def span_text(start: float, end: float, *scores: ClassScore) -> str:
    """Return a line with the classes of a stretch of time."""
    classes = "".join(f"  {label} {probability:.3f}" for label, probability in scores)
    return f"{clock_time(start)} - {clock_time(end)}{classes}"


@dataclass
class VideoLog:
    """Writes the windows of a video, or with a threshold its events, as soon as they are known."""

    name: str
    classes: Sequence[str]
    top: int
    threshold: float | None
    table: IO[str]  # CSV
    subtitles: IO[str]  # SRT, always of events
    prints: bool
    events: list[Event] = field(default_factory=list)

    def follow(self, windows: Windows) -> None:
        """Write what is known with each window."""
        events = find_events(self._written(windows), self.classes, self.threshold or 0)
        for number, event in enumerate(events, start=1):
            times = f"{clock_time(event.start)} --> {clock_time(event.end)}".replace(".", ",")
            self.subtitles.write("{}\n{}\n{} {:.2f}\n\n".format(number, times, *event.score))
            if self.threshold is not None:
                self.events.append(event)
                self.write("event", *event)

    def _written(self, windows: Windows) -> Iterator[WindowPrediction]:
        for window in windows:
            if self.threshold is None:
                scores = topk_classes(window.probabilities, self.classes, self.top)
                self.write("window", *window.seconds, *scores)
            yield window

    def write(self, part: str, start: float, end: float, *scores: ClassScore) -> None:
        """Write a row for each class of a window, an event or the whole video."""
        span = (self.name, part, f"{start:.3f}", f"{end:.3f}")
        rows = ((*span, label, f"{probability:.6f}") for label, probability in scores)
        csv.writer(self.table, lineterminator="\n").writerows(rows)
        if self.prints and part != "video":
            print(span_text(start, end, *scores), flush=True)
