"""Execute a notebook: python execute_notebook.py SOURCE TARGET. The kernel works in the directory of TARGET.

A program of its own, because the notebook client leaves sockets to the end of its process. Also the way to save a
changed notebook: `JUPYTER_PLATFORM_DIRS=1 python tests/docs/execute_notebook.py FROM TO`, then move TO into place.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


def main(source: Path, target: Path) -> None:
    notebook = nbformat.read(source, as_version=4)
    # Local sockets, not TCP ports that every user of the machine can reach; their paths must be short.
    with tempfile.TemporaryDirectory() as sockets:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        where = {"metadata": {"path": str(target.parent)}}
        NotebookClient(notebook, km=kernel, timeout=120, coalesce_streams=True, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
