"""Figures show the numbers they are given, survive gaps, and are saved with those numbers, the same bytes again."""

from __future__ import annotations

import base64
import io
import json
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_records import COUNTS, fake_ablations, fake_grid, fake_record, made
from PIL import Image
from scipy import stats
from sklearn import metrics

from audfer import published
from audfer.errors import InputError
from audfer.evaluation import compare
from audfer.evaluation.matrices import matrix, rank_correlations
from audfer.facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_INDEX
from audfer.models import NETWORKS
from audfer.results import (
    au_estimator,
    class_frequencies,
    contact_sheets,
    drawing,
    fig4,
    fig5,
    fig6,
    fig7,
    fig8,
    interpolation,
    knowledge,
    positive_class_weights,
    table1,
    table3,
)
from audfer.results.builder import STYLE, Result, digests_of


@pytest.fixture(scope="module")
def records():
    return fake_grid()


@pytest.fixture(autouse=True)
def package_style():
    with plt.style.context(STYLE):
        yield
    plt.close("all")


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_knowledge_heatmap_writes_every_cell_of_the_printed_matrix():
    values = published.knowledge("figure")
    axes = drawing.heatmap(matrix(values, "paper"), low=0, high=1)
    assert texts(axes) == [f"{value:.2f}" for value in values.ravel()]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(ACTION_UNITS)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(EXPRESSIONS)


def test_heatmap_places_cells_by_name_whatever_the_order_of_the_rows():
    data = matrix(np.arange(126).reshape(7, 18)).sample(frac=1, random_state=0)
    np.testing.assert_array_equal(drawing.heatmap(data).images[0].get_array(), np.arange(126).reshape(7, 18))


def test_unknown_cells_stay_blank():
    values = np.full((7, 17), 0.5)
    values[2, 3] = np.nan
    assert len(drawing.heatmap(matrix(values)).texts) == 7 * 17 - 1


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"expected \(7, 18\) or \(7, 17\)"):
        matrix(np.zeros((18, 7)))


def test_rank_correlation_is_spearmans_without_au28():
    generator = np.random.default_rng(0)
    printed = published.knowledge("figure")
    ours = printed + generator.normal(0, 0.1, printed.shape)
    found = rank_correlations(ours, printed)
    index = list(INTENSITY_INDEX)
    assert found["disgust"] == pytest.approx(stats.spearmanr(ours[5, index], printed[5, index]).statistic)
    assert found["overall"] == pytest.approx(
        stats.spearmanr(ours[:, index].ravel(), printed[:, index].ravel()).statistic
    )
    assert rank_correlations(printed[:, index], printed)["overall"] == pytest.approx(1)
    assert np.isnan(rank_correlations(np.zeros((7, 18)), printed)["overall"])


def test_colours_of_a_logarithmic_heatmap_follow_the_logarithm_and_numbers_are_short():
    values = np.full((7, 18), 10.0)
    values[0, 0], values[0, 1] = 1.0, 100.0
    axes = positive_class_weights.draw(matrix(values, "distinct")).axes[0]
    assert texts(axes)[:3] == ["1.0", "100", "10"]
    assert axes.images[0].norm(10.0) == pytest.approx(0.5)


def test_interpolation_marks_what_counted_as_missing():
    data = pd.DataFrame({"action_unit": "AU12", "frame": range(4), "before": [1, 0, 0, 4], "after": [1.0, 2, 3, 4]})
    line, missing, measured = interpolation.draw(data).axes[0].get_lines()
    assert list(line.get_ydata()) == [1, 2, 3, 4]
    assert (list(missing.get_xdata()), list(measured.get_xdata())) == ([1, 2], [0, 3])


def test_contact_sheets_lay_out_every_picture_with_its_labels():
    sheet = {
        "action_units": np.zeros((18, 2, 3, 8, 8, 3), np.uint8),
        "identity_labels": ["person 1", "person 2"],
        "action_unit_rows": [f"{au} name" for au in ACTION_UNITS],
        "intensity_columns": ["0", "3", "5"],
        "expressions": np.zeros((7, 2, 8, 8, 3), np.uint8),
        "expression_rows": list(EXPRESSIONS),
        "moment_columns": ["0.00", "1.00"],
    }
    sheet["action_units"][0, 1, 2] = 30
    axes = contact_sheets.draw_action_units(sheet)
    assert len(axes.get_yticklabels()) == 18 and len(axes.get_xticklabels()) == 6
    assert axes.images[0].get_array().max() == 255 and texts(axes)[0].startswith("person 1")
    assert len(contact_sheets.draw_expressions(sheet).get_yticklabels()) == 7
    data = contact_sheets.sheet_data(sheet)
    assert len(data) == 18 * 2 * 3 + 7 * 2
    changed = data[data["change"] > 0]
    assert changed[["row", "person", "strength", "change"]].values.tolist() == [["AU01 name", "person 2", 5.0, 30.0]]


def test_fig4_shows_both_matrices_and_the_correlation():
    data = fig4.fig4_data(published.knowledge("K2"))
    figure = fig4.draw(data)
    assert "0.37" in texts(figure.axes[1])[0]
    # K2 is a monotone map of Fig. 4's matrix (EQUATIONS.md 1); printing to two decimals makes a few ties
    assert data["overall_rank_correlation"].iloc[0] > 0.99
    assert any(text.startswith("+1.00") or text.startswith("+0.99") for text in texts(figure.axes[0]))


def test_ratio_data_holds_every_lambda_with_its_interval(records):
    data = fig5.ratio_data(records, "m3dfel")
    assert sorted(data["au_ratio"].unique()) == [0.0, 0.1, 0.25, 0.5, 0.75]
    assert set(data["model"]) == {"m3dfel"} and len(data) == 3 * 5 * 2
    assert (data["low"] <= data["value"]).all() and (data["value"] <= data["high"]).all()
    figure = fig5.draw(data)
    drawn = figure.axes[0].get_lines()[-1].get_ydata()
    np.testing.assert_allclose(drawn, data[(data["dataset"] == "DFEW") & (data["metric"] == "WAR")]["value"])


def test_changes_in_fig5_are_the_evaluations_against_no_head(records):
    data = fig5.ratio_data(records, "m3dfel")
    assert data.loc[data["au_ratio"] == 0, "difference"].isna().all()
    cells = [
        [r for r in records if (r.cell["model"], r.cell["dataset"], r.cell["au_ratio"]) == ("m3dfel", "MAFW", ratio)]
        for ratio in (0.0, 0.75)
    ]
    expected = compare(*cells).uar
    row = data[(data["dataset"] == "MAFW") & (data["au_ratio"] == 0.75) & (data["metric"] == "UAR")].iloc[0]
    found = [row[name] for name in ("difference", "difference_low", "difference_high")]
    np.testing.assert_allclose(found, [100 * getattr(expected, end) for end in ("value", "low", "high")])


def test_the_lambda_of_fig5_does_not_mix_in_the_cell_without_knowledge_weights(records):
    data = fig5.ratio_data(records, "m3dfel")
    table = made("table1", records).frame
    expected = table[(table["model"] == "m3dfel") & (table["dataset"] == "DFEW") & (table["variant"] == "with AU")]
    found = data[(data["dataset"] == "DFEW") & (data["au_ratio"] == 0.25)]
    np.testing.assert_allclose(found["value"], expected["ours"])


def test_loss_data_are_the_terms_of_eq_10_in_the_last_epoch(records):
    data = fig5.loss_data(records, "m3dfel")
    record = next(
        r for r in records if (r.cell["model"], r.cell["dataset"], r.cell["au_ratio"]) == ("m3dfel", "MAFW", 0.75)
    )
    last = record.history.iloc[-1]
    part = data[(data["dataset"] == "MAFW") & (data["au_ratio"] == 0.75)].set_index("term")
    assert part.loc["AU loss", "weighted"] == pytest.approx(0.75 * last["loss_au"])
    assert part["weighted"].sum() == pytest.approx(last["loss"]) and part["share"].sum() == pytest.approx(100)
    alone = data[data["au_ratio"] == 0].set_index("term")
    assert (alone.loc["AU loss", "weighted"] == 0).all() and (alone.loc["expression loss", "share"] == 100).all()
    figure = fig5.draw_terms(data)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["DFEW", "FERV39k", "MAFW"]
    heights = sorted(bar.get_height() for bar in figure.axes[2].patches)
    np.testing.assert_allclose(heights, sorted(data.loc[data["dataset"] == "MAFW", "weighted"]))
    assert f"{part.loc['AU loss', 'share']:.0f} %" in texts(figure.axes[2])


def test_the_ablation_figure_draws_the_differences_to_plain_bce():
    table = made("ablations", fake_ablations())
    tidy, figure = table.frame, table.plot()
    for axes, metric in zip(figure.axes, ("WAR", "UAR"), strict=True):
        part = tidy[(tidy["against"] == "plain BCE") & (tidy["metric"] == metric)]
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(part["variant"])
        dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(dots, part["difference"])
    assert texts(made("ablations", []).plot().axes[0]) == ["no records"]


def test_confusion_data_equals_scikit_learn_and_is_what_is_drawn(records):
    data = fig6.confusion_data(records, "DFEW")
    record = next(
        r for r in records if r.cell["model"] == "m3dfel" and r.cell["dataset"] == "DFEW" and r.cell["au_ratio"] == 0
    )
    part = data[(data["model"] == "m3dfel") & (data["variant"] == "without AU")]
    expected = metrics.confusion_matrix(record.expressions, record.scores.argmax(1))
    np.testing.assert_array_equal(part["count"].to_numpy().reshape(7, 7), expected)
    written = texts(drawing.confusion(part))
    assert written[:49] == [f"{value:.0f}" for value in 100 * (expected / expected.sum(1, keepdims=True)).ravel()]
    assert written[49:] == [str(value) for value in expected.ravel()]


def test_the_confusion_of_several_folds_is_that_of_all_their_clips():
    records = [fake_record("m3dfel", "DFEW", 0.0, fold=fold) for fold in (1, 2)]
    data = fig6.confusion_data(records, "DFEW")
    assert data["count"].sum() == 2 * sum(COUNTS["DFEW"])
    assert data["war"].iloc[0] == pytest.approx(100 * np.mean([r.scores.argmax(1) == r.expressions for r in records]))


def test_a_class_that_is_never_predicted_is_a_grey_column_that_says_so():
    record = fake_record()
    record.scores[:, 5] = -1  # disgust, 1 % of DFEW
    axes = drawing.confusion(fig6.confusion_data([record], "DFEW"))
    written = texts(axes)
    assert written.count("never predicted") == 1 and len(written) == 2 * 6 * 7 + 1
    assert [t.get_position()[0] for t in axes.texts if t.get_text() == "never predicted"] == [5]


def test_cells_above_the_scale_have_the_last_colour_and_the_others_keep_theirs():
    values = np.full((7, 18), 0.5)
    values[:, -1] = 1.75
    figure = drawing.matrices_by_source(matrix(values, "K0"), high=1, label="knowledge", remark=", rendered")
    image, bar = figure.axes[0].images[0], figure.axes[-1]
    assert image.norm.vmax == 1 and bar.get_ylabel() == "knowledge" and texts(figure.axes[0]).count("1.8") == 7
    assert figure.axes[0].get_title(loc="left") == "K0, rendered"


def test_fig6_has_six_panels_and_says_which_is_missing(records):
    some = [r for r in records if not (r.cell["model"] == "mae_dfer" and r.cell["au_ratio"] > 0)]
    figure = fig6.draw(fig6.confusion_data(some, "DFEW"))
    assert len(figure.axes) == 6 and texts(figure.axes[4]) == ["no record"]


def test_process_data_has_seven_panels_in_percent_and_marks_the_variants(records):
    data = fig7.process_data(records, "m3dfel", "DFEW")
    assert list(dict.fromkeys(data["panel"])) == list(fig7.PANELS) and len(fig7.PANELS) == 7
    record = next(
        r for r in records if r.cell["model"] == "m3dfel" and r.cell["dataset"] == "DFEW" and r.cell["au_ratio"] == 0
    )
    last = data[(data["variant"] == "without AU") & (data["panel"] == "test_war")]["value"].iloc[-1]
    assert last == pytest.approx(100 * record.history["test_war"].iloc[-1])
    figure = fig7.draw(data)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:7]]
    assert [title[:3] for title in titles] == [f"({letter})" for letter in "abcdefg"]
    assert len(figure.axes[2].get_lines()) == 1  # no AU loss without an AU head


def test_several_seeds_give_a_band():
    figure = made("fig7", [fake_record(au_ratio=r, seed=s) for r in (0.0, 0.25) for s in (0, 1)]).plot()
    assert len(figure.axes[0].collections) == 2


def test_cluster_scores_on_separated_and_on_mixed_clips():
    labels = np.repeat(np.arange(4), 15)
    generator = np.random.default_rng(0)
    apart = 50 * np.eye(4)[labels] + generator.normal(size=(60, 4))
    purity, ends, silhouette, neighbours = fig8.cluster_scores(apart, labels)
    assert (purity, neighbours) == (100, 10) and silhouette > 0.9
    assert fig8.cluster_scores(generator.normal(size=(60, 4)), labels)[0] < 50
    assert np.isnan(fig8.cluster_scores(apart[:1], labels[:1])[0])


def test_fig8_draws_every_clip_in_three_panels_and_repeats_itself():
    sizes = np.array([15, 12, 12, 10, 8, 3, 6])
    cells = ({"au_ratio": 0.0}, {"weights": "none"}, {})
    mine = [fake_record(counts=sizes, **settings) for settings in cells]
    data = fig8.embedding_data(mine, "m3dfel", "DFEW")
    assert data.groupby("variant").size().to_dict() == dict.fromkeys(fig8.PANELS, 66)
    assert data["chance"].iloc[0] == pytest.approx(100 * (sizes * (sizes - 1)).sum() / (66 * 65))
    figure = fig8.draw(data)
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == 66
    again = fig8.embedding_data(mine[:1], "m3dfel", "DFEW")
    pd.testing.assert_frame_equal(again, data[data["variant"] == fig8.PANELS[0]])


def test_everything_is_drawn_of_a_smoke_run_too():
    tiny = {"counts": (3, 2, 3, 2, 2, 0, 1), "epochs": 1}
    few = [fake_record(model, "DFEW", ratio, **tiny) for model in ("m3dfel", "mae_dfer") for ratio in (0.0, 0.25)]
    for name in ("fig5", "fig6", "fig7", "fig8", "table1", "table3"):
        made(name, few).plot().canvas.draw()


def test_frequencies_stand_beside_the_published_ones():
    data = class_frequencies.frequency_data({"DFEW": COUNTS["DFEW"], "RAVDESS": [8, 8, 4, 8, 8, 8, 8]})
    happy = data[(data["dataset"] == "DFEW") & (data["expression"] == "happy")].iloc[0]
    # class_counts.csv: 1956 happy clips among DFEW fold 1's training clips
    assert happy["paper_clips"] == 1956 and happy["share"] == pytest.approx(100 * 60 / 290)
    assert data[data["dataset"] == "RAVDESS"]["paper_share"].isna().all()
    assert len(class_frequencies.draw(data).axes) == 2


def test_result_pictures_draw_the_tables_numbers(records):
    table = made("table3", records).frame
    figure = table3.draw(table)
    part = table[(table["model"] == "m3dfel") & (table["metric"] == "WAR")].set_index("variant")
    zero, *ours, paper = (line.get_xdata() for line in figure.axes[0].get_lines())
    assert [x for (x,) in ours] == pytest.approx(part.loc[["global", "distinct", "minor"], "difference"].tolist())
    # Table 3 prints 64.33 without AU, 65.53, 64.80 and 64.16 with it
    assert list(zero) == [0, 0] and list(paper) == pytest.approx([1.20, 0.47, -0.17])
    assert len(table1.draw(made("table1", records).frame).axes) == 6


def test_recovery_and_estimator_figures_draw_their_cells():
    planted = np.random.default_rng(0).random((7, 17))
    axes = knowledge.draw_recovery(knowledge.recovery_data(planted, planted**3))
    assert axes.get_title(loc="left") == "rank correlation 1.00 [1.00, 1.00] (119 cells)"
    share = np.linspace(0.2, 0.9, 18)
    table = pd.DataFrame(
        {
            "action_unit": ACTION_UNITS,
            "f1": share,
            "f1_low": share - 0.1,
            "f1_high": share + 0.1,
            "base_rate": 0.25,
            "intensity_r": np.where(np.array(ACTION_UNITS) == "AU28", np.nan, share),
        }
    )
    figure = au_estimator.draw(table)
    np.testing.assert_allclose([bar.get_height() for bar in figure.axes[0].patches], share)
    assert "no intensity" in texts(figure.axes[1])


@pytest.mark.parametrize("name", ["table1", "table3", "fig5", "loss_terms", "fig6", "fig7", "fig8", "calibration"])
def test_figures_without_any_record_say_so(name):
    figure = made(name, []).plot()
    assert any("no record" in text for axes in figure.axes for text in texts(axes))


def test_saved_figure_brings_its_numbers_and_saving_again_changes_no_byte(records, tmp_path):
    data = fig5.ratio_data(records, "m3dfel")
    result = Result("fig5", data, "Fig. 5.", draw=fig5.draw, digests=digests_of(records))
    saved = result.save(tmp_path)
    assert [path.name for path in saved.paths] == ["fig5.png", "fig5.svg", "fig5.csv", "fig5.json"]
    before = [path.read_bytes() for path in saved.paths]
    result.save(tmp_path)
    assert [path.read_bytes() for path in saved.paths] == before
    np.testing.assert_allclose(pd.read_csv(saved.paths[2])["value"], data["value"], rtol=1e-5)
    assert not re.search(rb"dc:date|\d{4}-\d\d-\d\dT", before[1])
    about = json.loads(before[3])
    assert (
        about["caption"] == "Fig. 5." and records[0].path.name in about["records"] and "matplotlib" in about["versions"]
    )
    assert plt.get_fignums() == [] and "data:image/" in saved._repr_html_()


def test_colours_are_fixed_and_distinct():
    networks = {name: network.colour for name, network in NETWORKS.items()}
    for colours in (drawing.EXPRESSION_COLOURS, networks, drawing.VARIANT_COLOURS, table3.COLOURS):
        assert len(set(colours.values())) == len(colours)
    assert tuple(drawing.EXPRESSION_COLOURS) == EXPRESSIONS == tuple(drawing.EXPRESSION_MARKERS)


def test_the_callers_own_style_is_left_alone():
    plt.rcParams["font.size"] = 31
    before = dict(plt.rcParams)
    Result("k", matrix(published.knowledge("figure")), "", draw=drawing.heatmap).plot()
    assert dict(plt.rcParams) == before


def test_figures_of_four_networks_keep_their_texts_apart_and_inside():
    found = fake_grid(models=("m3dfel", "mae_dfer", "former_dfer", "keypoint_gcn"))
    for figure in (made(name, found).plot() for name in ("table1", "table3", "fig6")):
        figure.canvas.draw()
        whole = figure.bbox
        # matplotlib keeps labels of ticks beyond the ends of an axis, undrawn
        ticks = [
            tick.label1 for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()
        ]
        shown = [text for axes in figure.axes for text in (axes.title, axes._left_title, axes.xaxis.label)] + ticks
        shown = [text for text in shown if text.get_text() and text.get_visible()]
        boxes = [text.get_window_extent() for text in shown]
        assert any("KP-GCN" in text.get_text() for text in shown)
        assert all(
            box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1 for box in boxes
        )
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[i + 1 :]), shown[i]


def test_a_notebook_carries_a_picture_at_readers_size(tmp_path):
    def draw(frame):
        figure, axes = plt.subplots(figsize=(4, 4), dpi=200)
        axes.imshow(np.random.default_rng(0).random((200, 200, 3)))
        return figure

    saved = Result("noise", pd.DataFrame({"x": [1]}), "Noise.", draw=draw).save(tmp_path)
    kind, text = re.search(r"data:image/(\w+);base64,([^']+)'", saved.html).groups()
    content, file = base64.b64decode(text), (tmp_path / "noise.png").read_bytes()
    with Image.open(io.BytesIO(content)) as shown, Image.open(io.BytesIO(file)) as kept:
        assert shown.size == kept.size and shown.format.lower() == kind
    assert len(content) < 0.6 * len(file)
