"""A network and a table that only this file knows: trained, shown and found like the package's own."""

from __future__ import annotations

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest
from fake_records import fake_record, made

from audfer.errors import AudferError, InputError
from audfer.models import NETWORKS, Network
from audfer.models.output import ClipModel
from audfer.recipes import TINY
from audfer.results.builder import Result, digests_of, output
from audfer.study.outputs import OUTPUTS
from audfer.study.study import Study
from audfer.training.records import RunStore


class MeanColour(ClipModel):
    """The mean colour of each frame is all that it sees."""

    def __init__(self, *, num_classes=7, num_aus=18, num_frames=8, image_size=48):
        super().__init__()
        self.num_frames, self.image_size = num_frames, image_size
        self.add_heads(3 * num_frames, num_classes, num_aus)

    def encode(self, clips):
        return clips.mean((-2, -1)).flatten(1)


@pytest.fixture
def registered():
    """The registries with this file's network and table in them, and without them afterwards."""
    NETWORKS.add(
        "mean_colour", Network(MeanColour, "Mean colour", "#332211", {"paper": {}, "tiny": {}}, {"tiny": TINY})
    )

    @output("mean_of_wars", "03_training", needs=("table1",))
    def mean_of_wars(study, records, protocol="last"):
        table = study.results("table1", protocol=protocol).frame
        mean = table[table["metric"] == "WAR"].groupby("model", as_index=False)["ours"].mean()
        return Result("mean_of_wars", mean, f"Mean WAR. {study.caption}", digests=digests_of(records))

    yield
    for registry, name in ((NETWORKS, "mean_colour"), (OUTPUTS, "mean_of_wars")):
        del registry._entries[name]


def test_a_network_of_ones_own_goes_through_training_table_1_and_its_plot(study, registered, tmp_path):
    profile = replace(
        study.profile,
        grid=replace(study.profile.grid, models=("mean_colour",), datasets=("DFEW",)),
        training=replace(study.profile.training, epochs=1),
    )
    own = Study(profile, study.work.parent, tmp_path / "figures")
    own.store = RunStore(tmp_path / "runs")
    table = own.results("table1")
    assert table.display["Network"].tolist() == ["Mean colour"] * 2 and table.frame["ours"].notna().all()
    figure = table.plot()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Mean colour"]
    assert len(figure.axes[0].lines) == 2 and len(figure.axes[0].lines[0].get_xdata()) == 1
    assert own.results("mean_of_wars").frame["model"].tolist() == ["mean_colour"]
    assert own.results("mean_of_wars").save().paths[0].is_file()


def test_a_plot_drops_no_network_that_it_does_not_know():
    records = [fake_record(model, "DFEW", ratio) for model in ("m3dfel", "nobody's") for ratio in (0.0, 0.25)]
    for name in ("table1", "table3", "fig6"):
        said = " ".join(text.get_text() for text in made(name, records).plot().findobj(matplotlib.text.Text))
        assert "nobody's" in said and "M3DFEL" in said


def test_outputs_are_found_in_one_order_and_other_names_are_refused():
    names = list(OUTPUTS)
    assert {"table1", "fig4", "a1_findings", "keypoint_classes", "a3_f1"} <= set(names)
    core = [name for name in names if OUTPUTS[name].make.__module__.startswith("audfer.results")]
    assert names[: len(core)] == core == list(OUTPUTS)[: len(core)]
    with pytest.raises(InputError, match="output: found 'table9', expected one of .*table1"):
        made("table9", [])


def test_a_table_without_a_picture_cannot_be_plotted():
    with pytest.raises(AudferError, match="nothing is a table without a picture"):
        Result("nothing", pd.DataFrame({"a": [1]}), "Nothing.").plot()
