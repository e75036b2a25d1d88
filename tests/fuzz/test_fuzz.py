"""A short campaign; `make soak` tries many thousands. docs/reliability.md has its result."""

from pathlib import Path

from tests.fuzz.__main__ import MAKERS, Tally, attack, numbered
from tests.fuzz.verdict import Input, Outcome, Verdict, judge


def test_hostile_inputs_end_in_success_or_in_one_clear_line(tmp_path: Path) -> None:
    tally = Tally()
    for number, outcome in attack(seed=7, first=0, count=200, folder=tmp_path / "attack", slow=False):
        tally.add(number, outcome)
    assert tally.unclear == []
    assert tally.total() == 200
    assert {Verdict.ACCEPTED, Verdict.REFUSED} <= {
        verdict for counts in tally.counts.values() for verdict in counts
    }


def test_every_maker_comes_and_an_input_can_be_repeated() -> None:
    chosen = numbered(seed=1, first=0, count=5000)
    assert {maker for _, _, maker in chosen} == set(MAKERS)
    assert numbered(seed=1, first=4000, count=3) == chosen[4000:4003]


def used(use: object, must_refuse: bool = False) -> Outcome:
    return judge(Input("x", ("x.pth",), use, must_refuse))


def test_what_is_unclear_is_called_so() -> None:
    """The judge itself: names, tracebacks, length, escapes, and wrong results."""

    def fails(error: Exception) -> object:
        def use() -> None:
            raise error

        return use

    assert used(lambda: None).verdict is Verdict.ACCEPTED
    assert used(fails(ValueError("x.pth: is damaged"))).verdict is Verdict.REFUSED
    for error in (
        *(
            ValueError("is damaged"),
            KeyError("x.pth"),
            ValueError("x.pth" + "a" * 5000),
            MemoryError("x.pth"),
        ),
        *(
            ValueError("x.pth: \x1b[2J"),
            AssertionError("x.pth"),
            RecursionError("x.pth"),
            SystemExit("x.pth"),
        ),
    ):
        assert used(fails(error)).verdict is Verdict.UNCLEAR, error
    assert used(lambda: None, must_refuse=True).verdict is Verdict.UNCLEAR
