"""python -m tools.docs.notebook

Execute docs/tour.ipynb from the first cell to the last, and write it with its new outputs.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]
TOUR = REPOSITORY / "docs/tour.ipynb"
CELL_TIMEOUT = 1800  # seconds
METADATA = {  # without the version of Python, which would change with the machine
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute a notebook in place, as if it was started in `folder`. Raise CellExecutionError for a cell that fails."""
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)


def main() -> int:
    notebook = nbformat.read(TOUR, as_version=4)
    execute(notebook, TOUR.parent)
    nbformat.write(notebook, TOUR)
    print(TOUR.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
