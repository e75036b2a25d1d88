"""The repository's shape: which package imports which, read from the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("network", "data", "train")
ALLOWED = {"network": {"network"}, "data": {"data"}, "train": {"network", "data", "train"}}
# a third party with a temper lives in one module
ONLY_IN = {
    # the format; what is wrong with it; the original's way, for comparison
    "sqlite3": {"data/frame_store.py", "data/verify/checks.py", "data/benchmark/reference_pipeline.py"},
    "imgaug": {"data/video_transforms.py"},
    "matplotlib": {"train/figures.py"},
    "ffmpeg": {"data/ffmpeg.py"},
    "yt_dlp": {"data/download/fetch.py"},
    "safetensors": {"network/pretrained.py"},
    "onnxruntime": {"train/export.py"},
    "torchvision": set(),
}


def sources(repository: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from (repository / package).glob("*.py")
    yield from repository.glob("train_*.py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_command(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text("utf-8")


def test_imports_go_one_way(repository: Path) -> None:
    for path in sources(repository):
        package = path.relative_to(repository).parts[0]
        ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        allowed = ALLOWED.get(package, {"data", "train"})
        assert ours <= allowed, f"{path} imports {ours - allowed}"


def test_network_imports_torch_alone(repository: Path) -> None:
    """And, for who has files of that kind, safetensors."""
    for path in (repository / "network").glob("*.py"):
        names = {name.split(".")[0] for name in imports(path)}
        assert names - set(sys.stdlib_module_names) <= {"torch", "network", "safetensors"}, path


def test_a_library_with_a_temper_lives_in_one_module(repository: Path) -> None:
    for path in sources(repository):
        for name in {name.split(".")[0] for name in imports(path)} & ONLY_IN.keys():
            assert path.relative_to(repository).as_posix() in ONLY_IN[name], name


def test_processes_are_known_to_one_module(repository: Path) -> None:
    users = {
        path.relative_to(repository).as_posix()
        for path in sources(repository)
        if any(name.startswith("torch.distributed") for name in imports(path))
    }
    assert users == {"train/parallel/distributed.py"}


def test_commands_are_imported_by_tests_alone(repository: Path) -> None:
    commands = {
        ".".join(path.relative_to(repository).with_suffix("").parts)
        for path in sources(repository)
        if is_command(path)
    }
    for path in sources(repository):
        assert not imports(path) & commands, path


def test_scripts_are_facts_and_one_call(repository: Path) -> None:
    scripts = sorted(path.name for path in repository.glob("train_*.py"))
    assert scripts == [
        f"train_{name}.py" for name in ("diving48", "hacs", "hmdb51", "kinetics", "mit", "ucf101")
    ]
    for name in scripts:
        assert len((repository / name).read_text().splitlines()) <= 40


def test_every_requirement_is_pinned(repository: Path) -> None:
    lines = (repository / "requirements.txt").read_text().splitlines()
    for line in lines:
        assert not line or line.startswith("#") or "==" in line, line


def test_importing_is_quiet_quick_and_needs_no_torchvision(tmp_path: Path, repository: Path) -> None:
    """torchvision does not import beside a CPU build of torch; the original needed a CUDA extension.

    What takes a second to import is left to who uses it.
    """
    code = f"import sys; sys.modules['torchvision'] = None; sys.path.insert(0, {str(repository)!r})\n"
    code += "import network, data.video_iterator, train.main\n"
    code += "assert not {'imgaug', 'matplotlib', 'scipy', 'tensorboard'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
