"""Choose untrusted inputs at random, run them in the sandbox and count the outcomes."""

import random
from collections import Counter
from pathlib import Path

from tests.fuzz import checkpoints, cli_flags, csv_files, stores, videos
from tests.fuzz.sandbox import Numbered, run_in_sandbox
from tests.fuzz.verdict import Generator, Outcome, Verdict

# relative frequencies
GENERATORS: dict[Generator, int] = {
    stores.mutated_bytes: 30,
    stores.unexpected_rows: 20,
    stores.unexpected_jpegs: 12,
    stores.other_schema: 6,
    stores.shuffled_rows: 4,
    stores.wrong_count: 8,
    stores.not_a_database: 4,
    checkpoints.mutated_bytes: 15,
    checkpoints.mutated_pickle: 25,
    checkpoints.code: 8,
    checkpoints.unexpected_content: 15,
    checkpoints.unexpected_weights: 10,
    checkpoints.safetensors_file: 10,
    csv_files.mutated_bytes: 25,
    csv_files.unexpected_fields: 25,
    csv_files.paths_outside: 8,
    csv_files.open_quote: 3,
    csv_files.other_encoding: 3,
    csv_files.not_a_file: 4,
    csv_files.class_index: 12,
    csv_files.results_to_plot: 3,
    videos.mutated_bytes: 6,
    videos.odd_name: 2,
    videos.playlist: 2,
    videos.not_a_video: 2,
    cli_flags.training_flags: 10,
    cli_flags.small_dataset: 3,
    cli_flags.tool_flags: 8,
}


def choose_generators(seed: int, first: int, count: int) -> list[Numbered]:
    """Return (number, generator) of inputs; the generator is a function of the seed and the number."""
    numbers = range(first, first + count)
    streams = (random.Random(f"{seed} generator {number}") for number in numbers)
    chosen = (rng.choices(list(GENERATORS), list(GENERATORS.values()))[0] for rng in streams)
    return list(zip(numbers, chosen, strict=True))


def name_of(generator: Generator) -> str:
    return f"{generator.__module__.rpartition('.')[2]}.{generator.__name__}"


class Tally:
    """The number of inputs by generator and verdict, and the unclear outcomes."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[Verdict]] = {}
        self.unclear: list[str] = []

    def fuzz(self, seed: int, first: int, count: int, folder: Path) -> None:
        """Run `count` inputs in a sandbox in `folder`."""
        inputs = choose_generators(seed, first, count)
        for (_, generator), (number, outcome) in zip(
            inputs, run_in_sandbox(inputs, folder, seed), strict=True
        ):
            self.add(number, name_of(generator), outcome)

    def add(self, number: int, name: str, outcome: Outcome) -> None:
        self.counts.setdefault(name, Counter())[outcome.verdict] += 1
        if outcome.verdict is Verdict.UNCLEAR:
            self.unclear.append(f"input {number}, {name}: {outcome.detail}")

    def total(self) -> Counter[Verdict]:
        return sum(self.counts.values(), Counter())

    def __str__(self) -> str:
        lines = [f"{'':32}{'inputs':>9}" + "".join(f"{verdict.value:>9}" for verdict in Verdict)]
        for name, counts in [*sorted(self.counts.items()), ("total", self.total())]:
            lines.append(
                f"{name:32}{counts.total():9}" + "".join(f"{counts[verdict]:9}" for verdict in Verdict)
            )
        return "\n".join(lines)
