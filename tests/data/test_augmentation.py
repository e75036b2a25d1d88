"""The fused engine against imgaug, operation by operation, and what it costs nothing to decode."""

import hashlib
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from data import augmentation as fused
from data.augmentation import resize
from data.benchmark.reading import reader
from data.frame_store import EncodedFrames, FrameStore, write_frame_store
from data.video_transforms import AUGMENTATIONS, Operation, augment_with_imgaug, training_clip

SIZE = 224
REPOSITORY = Path(__file__).parents[2]
VIDEO = REPOSITORY.parent / "shared" / "videos" / "arm_wrestling.mp4"


def detailed(count: int = 2, height: int = 256, width: int = 340) -> np.ndarray:
    """Frames with edges, texture and slopes at once."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(30):
        middle = (int(generator.integers(width)), int(generator.integers(height)))
        color = [int(value) for value in generator.integers(256, size=3)]
        cv2.circle(frame, middle, int(generator.integers(4, 40)), color, -1, cv2.LINE_AA)
    return np.stack([np.roll(frame, 5 * i, axis=1) for i in range(count)])


@pytest.fixture(scope="module", params=["painted", "real"])
def frames(request: pytest.FixtureRequest) -> np.ndarray:
    """`(T, 224, 224, 3)`, of a real video where there is one."""
    if request.param == "painted":
        return np.ascontiguousarray(detailed()[:, 10 : 10 + SIZE, 20 : 20 + SIZE])
    if not VIDEO.is_file():
        pytest.skip(f"{VIDEO.name}: no real videos beside the repository")
    capture = cv2.VideoCapture(str(VIDEO))
    return np.stack([capture.read()[1][10 : 10 + SIZE, 20 : 20 + SIZE] for _ in range(2)])


def fuse(frames: np.ndarray, drawn: list[tuple[Operation, tuple]], size: int = SIZE) -> np.ndarray:
    out = np.empty((len(frames), size, size, 3), np.uint8)
    shrink = frames.shape[1] / size
    painters = [operation.painter(*values, size=size, shrink=shrink) for operation, values in drawn]
    fused.fuse(
        (([i], frame.copy()) for i, frame in enumerate(frames)),
        out,
        window=(0, 0, frames.shape[1]),
        warps=[op.warp(*values, clip_size=frames.shape[1]) for op, values in drawn if op.warp],
        clip_size=frames.shape[1],
        painters=[painter for painter in painters if painter],
        mirrored=False,
    )
    return out


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("operation", AUGMENTATIONS, ids=lambda operation: operation.name)
def test_both_engines_do_the_same(operation: Operation, frames: np.ndarray) -> None:
    for seed in range(12):
        drawn = [(operation, operation.draw(np.random.default_rng(seed)))]
        ours, theirs = fuse(frames, drawn), augment_with_imgaug(frames, drawn)
        if operation.name != "noise":
            assert psnr(ours, theirs) >= 50
            continue
        grey = np.full_like(frames, 127)  # far from both ends, where nothing is cut off but the tails
        ours, theirs = fuse(grey, drawn).astype(float), augment_with_imgaug(grey, drawn).astype(float)
        assert abs(ours.mean() - theirs.mean()) < 1.5
        assert ours.std() == pytest.approx(theirs.std(), rel=0.01)
        assert np.array_equal(ours[0], ours[1])  # one field in all frames
        assert np.array_equal(ours[..., 0], ours[..., 2])  # and channels


def test_operations_change_what_they_should(frames: np.ndarray) -> None:
    """Agreement alone would also hold for two engines that do nothing."""
    for operation in AUGMENTATIONS:
        changed = fuse(frames, [(operation, operation.draw(np.random.default_rng(1)))])
        assert np.array_equal(changed, frames) == (operation.name == "blur"), operation.name


def test_noise_and_motion_blur_shrink_with_the_clip() -> None:
    """Noise of a mean of four pixels has half the deviation; a line of seven pixels is one of three."""
    grey = np.full((80, 80, 3), 127, np.uint8)
    deviations = [fused.noise(20.0, 1.0, size=80, shrink=s)(grey.copy()).std() for s in (1.0, 2.0)]
    assert deviations[0] / deviations[1] == pytest.approx(2, rel=0.05)
    dot = np.zeros((9, 9, 3), np.uint8)
    dot[4, 4] = 255
    reach = [
        fused.motion_blurred(7, 0.0, 0.0, size=9, shrink=s)(dot.copy())[..., 0].any(axis=1).sum()
        for s in (1, 2)
    ]
    assert reach == [7, 3]
    assert fused.motion_blurred(3, 0.0, 0.0, size=9, shrink=2) is None


def encoded(frames: np.ndarray) -> EncodedFrames:
    jpegs = {i: simplejpeg.encode_jpeg(frame, quality=95, colorspace="BGR") for i, frame in enumerate(frames)}
    return EncodedFrames(Path("store"), list(jpegs), jpegs)


@pytest.mark.parametrize("size", [80, 112, 158, 224])
def test_whole_clips_look_alike_at_every_size(size: int) -> None:
    """Not augmented: halved in decoding and resampled once, against decoded whole and resampled twice."""
    source = encoded(detailed(2, 294, 392))
    arguments = {"size": size, "clip_size": 224, "short_side": 294, "flip": True}
    for seed in range(4):
        ours, theirs = (
            training_clip(source, augment="none", generator=np.random.default_rng(seed), **arguments),
            _by_hand(source.decode(), size, np.random.default_rng(seed)),
        )
        assert psnr(ours, theirs) > 30


def _by_hand(frames: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    top, left = (int(generator.integers(length - 224, endpoint=True)) for length in (294, 392))
    if size <= 112:  # halved in decoding
        top, left = top - top % 2, left - left % 2
    crop = frames[:, top : top + 224, left : left + 224]
    if generator.random() < 0.5:
        crop = crop[:, :, ::-1]
    return resize(crop, size, size)


def test_a_warp_of_a_much_larger_window_does_not_alias() -> None:
    """It took the mean of four pixels where one of the output covers eighty: 21 dB."""
    generator = np.random.default_rng(0)
    spectrum = np.fft.rfft2(generator.normal(size=(720, 720, 3)), axes=(0, 1))
    distance = np.hypot(np.fft.fftfreq(720)[:, None], np.fft.rfftfreq(720)[None])
    picture = np.fft.irfft2(spectrum / np.maximum(distance, 1 / 720)[:, :, None], axes=(0, 1))
    frame = np.clip(128 + 50 * picture / picture.std(), 0, 255).astype(np.uint8)
    rotation = next(operation for operation in AUGMENTATIONS if operation.name == "rotation")
    turned = cv2.warpPerspective(frame, rotation.warp(5, clip_size=720), (720, 720), flags=cv2.INTER_LINEAR)
    wanted = cv2.resize(turned, (80, 80), interpolation=cv2.INTER_AREA)
    assert psnr(fuse(frame[None], [(rotation, (5,))], size=80)[0], wanted) > 28


def test_warps_come_before_the_mirror_and_compose() -> None:
    """Two rotations by 5 degrees are one by 10."""
    frames = detailed(1)[:, :SIZE, :SIZE].copy()
    rotation = next(operation for operation in AUGMENTATIONS if operation.name == "rotation")
    twice, once = fuse(frames, [(rotation, (5.0,))] * 2), fuse(frames, [(rotation, (10.0,))])
    assert psnr(twice, once) > 45


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("stores")
    for i in range(3):
        jpegs = [simplejpeg.encode_jpeg(frame, quality=90, colorspace="BGR") for frame in detailed(20 + i)]
        write_frame_store(root / f"v{i}", jpegs)
    return [root / f"v{i}" for i in range(3)]


def _digest(arguments: tuple[list[Path], int]) -> str:
    folders, seed = arguments
    cv2.setNumThreads(0)
    return hashlib.sha256(reader(folders, 4, 80)(seed).tobytes()).hexdigest()


def test_equal_requests_give_equal_bytes_in_any_process_and_order(stores: list[Path]) -> None:
    seeds = list(range(24))
    here = {seed: _digest((stores, seed)) for seed in seeds}
    assert len(set(here.values())) == len(seeds)  # no stream comes twice
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(_digest, [(stores, seed) for seed in seeds[::-1]], chunksize=5)
    assert there == [here[seed] for seed in seeds[::-1]]


@pytest.mark.parametrize("augment", ["fused", "imgaug", "none"])
def test_the_reader_gives_what_a_worker_gives(stores: list[Path], augment: str) -> None:
    read = reader(stores, 4, 112, augment=augment)
    clip = read(7)
    assert (clip.shape, clip.dtype) == ((4, 112, 112, 3), np.uint8)
    assert np.array_equal(clip, read(7))
    assert not np.array_equal(clip, read(10))


def test_memory_and_files_are_flat(stores: list[Path]) -> None:
    from data.benchmark.reading import growth  # noqa: PLC0415

    megabytes, files = growth(reader(stores, 4, 80), 300)
    assert megabytes < 8
    assert files == 0


def test_a_store_of_other_sizes_is_an_error(tmp_path: Path) -> None:
    frames = [detailed(1)[0], detailed(1, 200, 300)[0]]
    write_frame_store(tmp_path / "v", [simplejpeg.encode_jpeg(frame, colorspace="BGR") for frame in frames])
    with pytest.raises(ValueError, match=r"v/frames\.db: frames differ in size"):
        list(FrameStore(tmp_path / "v").fetch([0, 1]).decode_each(halved=True))
