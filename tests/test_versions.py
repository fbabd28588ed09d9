"""Keys go by versions of components: what changes them, what does not, and that nobody forgets to raise one."""

import json
import shutil
from dataclasses import replace

import components
import numpy as np
import pytest
from paths import ROOT

from audfer.datasets import open_packed, pack
from audfer.models import NETWORKS
from audfer.plugins import COMPONENTS, versions
from audfer.training.loop import Cell, CellInputs
from audfer.training.records import RunStore

PLAIN = Cell("former_dfer", "DFEW")
WITH_AUS = Cell("former_dfer", "DFEW", au_ratio=0.25, strategy="global")
INPUTS = CellInputs("", "", "", "clips", "aus", landmarks_fingerprint="points")


def test_nothing_that_numbers_depend_on_changed_without_a_word(present):
    pinned = json.loads(components.PINS.read_text())
    for name, modules in components.changes(present, pinned).items():
        pytest.fail(
            f"component {name!r} changed in {', '.join(modules)}: raise its version (audfer/plugins.py, or the "
            "network's `version`) if the same input may give other numbers now; then, or if it cannot, run "
            "python tests/components.py"
        )
    assert present == pinned, "run python tests/components.py"


@pytest.fixture
def package(tmp_path):
    shutil.copytree(ROOT / "audfer", tmp_path / "audfer", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "audfer"


@pytest.fixture(scope="module")
def present():
    """The state of the package as it is."""
    return components.state(ROOT / "audfer", components.components())


@pytest.fixture
def changed(package, present):
    return lambda: set(components.changes(components.state(package, components.components()), present))


def test_docstrings_comments_and_formatting_change_no_component(package, changed):
    path = package / "models" / "former_dfer.py"
    code = path.read_text().split('"""', 2)[2].replace("super().__init__()", "super(  ).__init__( )")
    path.write_text(f'"""Another text."""\n# a comment\n{code}')
    assert changed() == set()


def test_moving_a_file_changes_no_component(package, changed):
    (package / "models" / "attention.py").rename(package / "attention.py")
    for path in package.rglob("*.py"):
        path.write_text(path.read_text().replace("from .attention import", "from ..attention import"))
    assert changed() == set()


def test_a_network_counts_among_those_that_borrow_from_it(package, changed):
    """KP-GCN uses Former-DFER's transformer; its records once stayed in use when that file changed."""
    path = package / "models" / "former_dfer.py"
    path.write_text(path.read_text().replace("self.heads = heads", "self.heads = heads + 0"))
    assert {"network former_dfer", "network keypoint_gcn"} <= changed()
    assert not {"network m3dfel", "network mae_dfer", "packing", "rendering"} & changed()


def test_the_loss_counts_for_cells_with_an_au_head_only(monkeypatch, tmp_path):
    store = RunStore(tmp_path)
    before = [store.key(cell, INPUTS) for cell in (PLAIN, WITH_AUS)]
    monkeypatch.setitem(COMPONENTS._entries, "au loss", replace(COMPONENTS["au loss"], version=99))
    after = [store.key(cell, INPUTS) for cell in (PLAIN, WITH_AUS)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_network_counts_for_its_own_cells_only(monkeypatch, tmp_path):
    store, other = RunStore(tmp_path), Cell("m3dfel", "DFEW")
    before = [store.key(cell, INPUTS) for cell in (PLAIN, other)]
    monkeypatch.setitem(NETWORKS._entries, "former_dfer", replace(NETWORKS["former_dfer"], version=99))
    after = [store.key(cell, INPUTS) for cell in (PLAIN, other)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_the_training_code_counts_for_all(monkeypatch, tmp_path):
    before = RunStore(tmp_path).key(PLAIN, INPUTS)
    monkeypatch.setitem(COMPONENTS._entries, "training", replace(COMPONENTS["training"], version=99))
    assert RunStore(tmp_path).key(PLAIN, INPUTS) != before


def test_an_unknown_component_is_an_error():
    with pytest.raises(KeyError):
        versions("no such component")


# -------------------------------------------------------------------------------------------------------------- clips


def test_packed_clips_are_known_by_their_content(study, tmp_path):
    manifest = study.manifest("DFEW")
    first, again = (pack(manifest, tmp_path / name, 4, 32) for name in ("first", "again"))
    assert first.content == again.content == open_packed(tmp_path / "again").content
    other_size, other_frames = pack(manifest, tmp_path / "size", 4, 24), pack(manifest, tmp_path / "frames", 5, 32)
    assert len({first.content, other_size.content, other_frames.content}) == 3


def test_channels_in_another_order_are_other_clips(study, tmp_path, monkeypatch):
    from audfer.datasets import packing

    manifest, load = study.manifest("DFEW"), packing.load_frames
    first = pack(manifest, tmp_path / "rgb", 4, 32)
    monkeypatch.setattr(packing, "load_frames", lambda *arguments, **options: load(*arguments, **options)[..., ::-1])
    swapped = pack(manifest, tmp_path / "bgr", 4, 32)
    assert np.array_equal(swapped.frames, first.frames[..., ::-1])
    assert swapped.content != first.content


def test_swapped_pictures_of_equal_size_are_packed_again(study, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(study.data_root / "DFEW", root / "DFEW")
    manifest = replace(study.manifest("DFEW"), root=root / "DFEW")
    first = pack(manifest, tmp_path / "packed", 4, 32).content
    folder = root / "DFEW" / manifest.table["path"].iloc[0]
    one, other = sorted(folder.iterdir())[:2]
    bytes_of_one, bytes_of_other = one.read_bytes(), other.read_bytes()
    size = max(len(bytes_of_one), len(bytes_of_other))
    one.write_bytes(bytes_of_other.ljust(size, b"\0"))
    other.write_bytes(bytes_of_one.ljust(size, b"\0"))
    assert pack(manifest, tmp_path / "packed", 4, 32).content != first
