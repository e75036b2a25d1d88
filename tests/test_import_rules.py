"""The shape of the repository, read from the syntax trees: who imports whom, and no private name of a library."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.commands import REPOSITORY

PACKAGES = ("network", "data", "train")
ALLOWED_IMPORTS = {  # part -> other parts that it may import; `<package>.*` are its commands
    "network": (),
    "network.*": ("network", "data.common"),
    "data.common": (),
    "data": ("data.common",),
    "data.*": ("data", "data.common"),
    "train": ("data", "data.common", "network"),
    "train.*": ("data", "data.common", "network", "train"),
    "tools": ("data", "data.common", "network", "train"),
    "scripts": ("data", "train"),
}
TRAINING_PATH = {"train.parallel", "train.checkpointing", "data.ffmpeg"}  # folders that are not commands
ONLY_IN = {  # third party -> modules and folders that may import it
    "sqlite3": ("data.frame_store", "data.store_writer", "data.verify", "data.benchmark"),
    "imgaug": ("data.imgaug_engine",),
    "ffmpeg": ("data.ffmpeg",),
    "yt_dlp": ("data.download",),
    "matplotlib": ("train.figures", "tools"),
    "jinja2": ("train.report",),
    "safetensors": ("network.pretrained",),
    "gdown": ("network.published",),
    "wandb": ("train.trackers",),
    "argcomplete": ("data.common.cli",),
    "onnxruntime": ("train.export",),
    "torch.distributed": ("train.parallel.distributed",),
    "torchvision": (),
}
# os._exit and the methods of named tuples are documented; the others have no public equivalent
ALLOWED_PRIVATE = re.compile(r"os\._exit|torch\._foreach_\w+|torch\._dynamo\.config(\.\w+)*")
NAMED_TUPLE = {"_asdict", "_replace", "_fields", "_make", "_field_defaults"}
PATCHING = {
    "getattr",
    "hasattr",
    "setattr",
    "delattr",
    "patch",
    "object",
}  # functions that take names as strings


@cache
def sources() -> dict[str, Path]:
    """Return the path of each module by its dotted name, tests and tools included."""
    paths = [path for folder in (*PACKAGES, "tests", "tools") for path in (REPOSITORY / folder).rglob("*.py")]
    paths += REPOSITORY.glob("train_*.py")
    names = (".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


@cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(sources()[module].read_text("utf-8"))))


@cache
def imports(module: str) -> set[str]:
    """Return the dotted names that a module imports, of modules and of what is in them."""
    found = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def part_of(module: str) -> str:
    """Return the part that a module belongs to: `data`, `data.common`, `data.convert`, `train.plot`, ..."""
    package, _, rest = module.partition(".")
    if package not in PACKAGES:
        return package if rest else "scripts"
    part = ".".join(module.split(".")[:2])
    path = sources().get(part, Path())
    is_folder = path.name == "__init__.py" and part not in (package, *TRAINING_PATH)
    is_command = (
        path.is_file() and path.stem != "__main__" and '__name__ == "__main__"' in path.read_text("utf-8")
    )
    return part if is_folder or is_command else package


PRODUCT = sorted(module for module in sources() if not module.startswith("tests."))


def test_imports_go_one_way() -> None:
    """Commands, also those of one file, are imported by tests and benchmarks alone; benchmarks import anything."""
    wrong = set()
    for module in PRODUCT:
        part = part_of(module)
        allowed = {part, *ALLOWED_IMPORTS.get(part, ALLOWED_IMPORTS.get(f"{part.partition('.')[0]}.*", ()))}
        if not part.endswith(".benchmark"):
            ours = imports(module) & sources().keys()
            wrong |= {(module, name) for name in ours if part_of(name) not in allowed}
    assert wrong == set()


def test_nothing_imports_a_main() -> None:
    assert {(module, name) for module in sources() for name in imports(module) if "__main__" in name} == set()


def test_third_parties_are_imported_in_one_place() -> None:
    for module in PRODUCT:
        for library, places in ONLY_IN.items():
            if any(f"{name}.".startswith(f"{library}.") for name in imports(module)):
                assert f"{module}.".startswith(tuple(f"{place}." for place in places)), (module, library)
        if part_of(module) == "network":
            others = {name.partition(".")[0] for name in imports(module)} - set(sys.stdlib_module_names)
            assert others <= {"torch", "network", "safetensors", "filelock", "gdown"}, module


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute access, `.b.c` where it is not of a name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def own_names() -> set[str]:
    """Return the names of all functions, classes, variables and attributes that our own code defines."""
    found = set()
    for node in (node for module in sources() for node in nodes(module)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(re.sub(r"^(self|cls)\.", "", dotted(node)))
    return found


def used_names(module: str) -> Iterator[str]:
    """Yield dotted names that a module imports, accesses, or gives to `getattr`, `setattr`, `patch` and the like."""
    yield from imports(module)
    inner = {id(node.value) for node in nodes(module) if isinstance(node, ast.Attribute)}  # `a.b` of `a.b.c`
    for node in nodes(module):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            yield dotted(node)
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in PATCHING:
            texts = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            yield from (text for text in texts if isinstance(text, str))


def test_no_private_name_of_a_library_is_used() -> None:
    known = own_names() | NAMED_TUPLE

    def is_private(name: str) -> bool:
        parts = {part for part in name.split(".") if re.match(r"_[^_]", part)}
        return not parts <= known and not ALLOWED_PRIVATE.fullmatch(name)

    found = {module: set(filter(is_private, used_names(module))) for module in sources()}
    assert {module: names for module, names in found.items() if names} == {}


def test_no_private_method_of_a_library_is_overridden() -> None:
    for module in (module for module in PRODUCT if part_of(module) not in ("scripts", "tools")):
        for _, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if cls.__module__ == module:
                theirs = [base for base in cls.__mro__ if not base.__module__.startswith(PACKAGES)]
                own = {name for name, value in vars(cls).items() if inspect.isfunction(value)}
                private = {name for name in own - NAMED_TUPLE if re.match(r"_[^_]", name)}
                assert {name for base in theirs for name in private & vars(base).keys()} == set(), cls


def test_scripts_are_facts_and_one_call() -> None:
    scripts = sorted(REPOSITORY.glob("train_*.py"))
    names = [path.stem.removeprefix("train_") for path in scripts]
    assert names == ["diving48", "hacs", "hmdb51", "kinetics", "mit", "ucf101"]
    assert all(len(path.read_text().splitlines()) <= 40 for path in scripts)


def test_every_requirement_is_pinned() -> None:
    for path in REPOSITORY.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            assert not line or line.startswith("#") or "==" in line, line


def test_importing_is_silent_and_leaves_out_what_is_slow(tmp_path: Path) -> None:
    """torchvision, which needs a build of its own for each of torch, is not needed at all."""
    code = f"import sys; sys.modules['torchvision'] = None; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    code += "import network, data.video_iterator, train.main\n"
    code += "assert not {'imgaug', 'matplotlib', 'scipy', 'tensorboard', 'wandb'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
