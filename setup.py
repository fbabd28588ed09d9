"""What pyproject.toml cannot say: a wheel takes the notebooks along, without their outputs."""

import json
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOTEBOOKS = Path(__file__).parent / "notebooks"


class WithNotebooks(build_py):
    """Modules and data files, and ``notebooks/`` for ``audfer reproduce`` of an installed package."""

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):  # the checkout itself is used
            return
        for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
            if ".ipynb_checkpoints" in path.parts:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
            for cell in content["cells"]:
                if cell["cell_type"] == "code":
                    cell.update(outputs=[], execution_count=None)
            target = Path(self.build_lib, "audfer", "companion", "shipped_notebooks", path.relative_to(NOTEBOOKS))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


setup(cmdclass={"build_py": WithNotebooks})
