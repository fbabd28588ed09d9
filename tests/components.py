"""What each component consists of, as digests of syntax trees: ``python tests/components.py`` pins them anew.

Docstrings, comments, formatting, imports and file names do not count, so that writing, formatting and moving change
nothing here.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path

from paths import HERE, ROOT

PINS = HERE / "components.json"


def module_files(package: Path) -> dict[str, Path]:
    """Module name, relative to the package ("" is its own ``__init__``) -> file."""
    names = {path: ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    return {name.removesuffix("__init__").removesuffix("."): path for path, name in names.items()}


def imported(name: str, files: dict[str, Path], package: str = "audfer") -> set[str]:
    """Modules of the package that a module imports, anywhere in its file."""
    inside = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
    seen = set()
    for node in ast.walk(ast.parse(files[name].read_text())):
        if isinstance(node, ast.Import):
            bases = [alias.name.removeprefix(f"{package}.") for alias in node.names if alias.name.startswith(package)]
            seen |= set(bases)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = [package, *inside.split(".")] if inside else [package]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            else:
                base = node.module
            if base == package or base.startswith(f"{package}."):
                base = base.removeprefix(package).removeprefix(".")
                seen |= {base, *(f"{base}.{alias.name}".removeprefix(".") for alias in node.names)}
    return {module for module in seen if module in files} - {name, ""}


def members(entries, imports: dict[str, set[str]]) -> set[str]:
    """The modules in which a component begins, and everything that they import."""
    todo, seen = list(entries), set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports[name]
    return seen


def tree_digest(source: str) -> str:
    """Digest of a syntax tree without docstrings and imports."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                part
                for part in body
                if not isinstance(part, ast.Import | ast.ImportFrom)
                and not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def data_digests(path: Path) -> dict[str, str]:
    """Digest -> name of the tables and settings beside a module that its code names."""
    text = path.read_text()
    beside = [file for ending in ("csv", "toml", "json") for file in path.parent.glob(f"*.{ending}")]
    named = [file for file in beside if file.name in text or f'"{file.stem}"' in text]
    return {hashlib.sha256(file.read_bytes()).hexdigest()[:12]: file.name for file in named}


def state(package: Path, components: dict[str, tuple[int, tuple[str, ...]]]) -> dict:
    """Component -> version, and digest -> module of everything that it consists of."""
    files = module_files(package)
    imports = {name: imported(name, files) for name in files}
    digests = {name: {tree_digest(path.read_text()): name} | data_digests(path) for name, path in files.items()}
    return {
        name: {
            "version": version,
            "trees": {k: v for m in sorted(members(entries, imports)) for k, v in digests[m].items()},
        }
        for name, (version, entries) in components.items()
    }


def components() -> dict[str, tuple[int, tuple[str, ...]]]:
    """All components and networks of the package: name -> version, modules in which they begin."""
    from audfer.datasets import DATASETS
    from audfer.models import NETWORKS
    from audfer.plugins import COMPONENTS

    own = {name: (part.version, part.modules) for name, part in COMPONENTS.items()}
    # readers are found by their registry, not imported by name
    readers = {(dataset.read or dataset.annotation.read).__module__ for dataset in DATASETS.values()}
    version, modules = own["reading"]
    own["reading"] = version, (*modules, *(reader.removeprefix("audfer.") for reader in sorted(readers)))
    for name, network in NETWORKS.items():
        own[f"network {name}"] = (network.version, (network.build.__module__.removeprefix("audfer."),))
    return own


def changes(now: dict, pinned: dict) -> dict[str, list[str]]:
    """Component -> modules that were changed, added or removed while its version stayed."""
    return {
        name: sorted({now[name]["trees"].get(tree) or pinned[name]["trees"][tree] for tree in differing})
        for name in now.keys() & pinned.keys()
        if (differing := now[name]["trees"].keys() ^ pinned[name]["trees"].keys())
        and now[name]["version"] == pinned[name]["version"]
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PINS.write_text(json.dumps(state(ROOT / "audfer", components()), indent=1, sort_keys=True) + "\n")
