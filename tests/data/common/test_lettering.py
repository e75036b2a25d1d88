"""Text in pictures: readable in many scripts, else codes."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import features

from data.common.lettering import draw_text, fonts, has_letters, text_mask, warn_of_codes

WORDS = {
    "Latin": ("čeština", "Tiếng Việt"),
    "Cyrillic": ("толкать", "бросить"),
    "Greek": ("σπρώχνω", "τραβώ"),
    "Chinese": ("推开门", "拉开门"),
    "Japanese": ("押すカナ", "引くカナ"),
    "Korean": ("밀다", "당기다"),
    "Arabic": ("دفع", "سحب"),
    "Persian with a zero-width non-joiner": ("می\u200cخواهم", "می\u200cروم"),
    "Hebrew": ("לדחוף", "למשוך"),
    "Hindi": ("धक्का", "खींचना"),
    "Thai": ("ผลัก", "ดึงที่"),
}


def skip_without_fribidi() -> None:
    if not features.check("fribidi"):
        pytest.skip("Pillow joins and reorders letters by the system's libfribidi, which is not installed")


@pytest.mark.parametrize("script", WORDS)
def test_scripts_are_readable(script: str) -> None:
    """A missing letter is drawn as ? or as a box, so that words of equal length look alike."""
    if script.startswith(("Persian", "Hebrew")):
        skip_without_fribidi()
    for word in WORDS[script]:
        mixed = f"{word} push 12"
        assert any(has_letters(font, mixed) for font in fonts())
        assert text_mask(mixed, 20).shape[1] > text_mask(word, 20).shape[1]
    first, second = (text_mask(word, 20) for word in WORDS[script])
    assert not np.array_equal(first[:, :9], second[:, :9])


def test_installed_noto_fonts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    font = tmp_path / "truetype" / "NotoSansThai-Regular.ttf"
    font.parent.mkdir()
    font.write_bytes(next(Path(path) for path in fonts() if "NotoSansThai" in path).read_bytes())
    monkeypatch.setattr("data.common.lettering.FONT_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    assert fonts.__wrapped__()[-1] == str(font)
    assert has_letters(str(font), "ผลัก")


def test_arabic_letters_are_joined_and_hindi_ones_combined() -> None:
    skip_without_fribidi()
    for word in ("سحب", "क्षक्ष"):
        apart = sum(text_mask(letter, 40).shape[1] - 1 for letter in word)
        assert text_mask(word, 40).shape[1] < 0.95 * apart


def test_codes_where_no_font_has_a_letter(caplog: pytest.LogCaptureFixture) -> None:
    """With one warning."""
    warn_of_codes.cache_clear()
    with caplog.at_level(logging.WARNING):
        for text, codes in (("𐎀𐎁", "\\U00010380\\U00010381"), ("push 𐎀", "push \\U00010380")):
            assert np.array_equal(text_mask(text, 20), text_mask(codes, 20))
    assert len(caplog.records) == 1
    assert "Noto fonts are used where installed" in caplog.text


@pytest.mark.parametrize("text", ["hammer throw", "推开门推开门", "𐎀𐎁", "", "a\nb"])
def test_a_line_is_cut_to_a_width(text: str) -> None:
    assert text_mask(text, 20, 50).shape[1] <= 50
    assert text_mask(text, 20, 50).shape[0] == 30


def test_text_is_drawn_within_the_picture() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    draw_text(picture, "push", (5, 30), (10, 200, 30), 20)
    rows, columns = np.nonzero(picture[:, :, 1] > 150)
    assert (rows.min() > 10, rows.max() < 37, columns.min() >= 5) == (True, True, True)
    for position in ((-5, 3), (50, 39), (90, 90)):
        draw_text(picture, "推开门", position, (1, 2, 3), 20)
