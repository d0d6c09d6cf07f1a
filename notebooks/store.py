"""Run the notebooks and store them with their output: `make notebooks`.

Times and versions are left out of them, and charts have few colours, so that they stay small.
"""

import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent

for path in sorted(FOLDER.glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, resources=where, record_timing=False).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            chart = output.get("data", {}).get("image/png")
            if chart:
                small = io.BytesIO()
                image = Image.open(io.BytesIO(base64.b64decode(chart))).convert("RGB")
                image.quantize(64).save(small, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(small.getvalue()).decode()
    nbformat.write(notebook, path)
