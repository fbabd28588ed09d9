"""Section 3.1 against the released numbers and hand arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from paths import SHARED
from scipy import stats

from audfer import published
from audfer.action_units import table_from_openface_folder
from audfer.errors import InputError
from audfer.facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS, INTENSITY_INDEX
from audfer.knowledge import WEIGHTS, KnowledgeMatrix, control_matrix, separating_aus
from audfer.openface import INTENSITY_COLUMNS

RAVDESS = SHARED / "data" / "ravdess_openface"
UNITS = [f"{au}_r" for au in INTENSITY_ACTION_UNITS]
CENTRE = 0.523147108  # RELEASE_FORENSICS.md 1.2: logit(K1) - logit(K2) in every cell
MEASURED = list(INTENSITY_INDEX)


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def frames_of(medians: np.ndarray, dataset: str = "d") -> pd.DataFrame:
    """Three one-frame clips an expression whose medians are the given (7, 17)."""
    table = pd.DataFrame(np.repeat(medians, 3, axis=0), columns=UNITS)
    for e in range(7):  # the outer two frames differ, the median stays
        table.iloc[3 * e] *= 0.5
        table.iloc[3 * e + 2] = np.minimum(table.iloc[3 * e + 2] + 0.3, 5)
    table.insert(0, "expression", np.repeat(np.arange(7), 3))
    table.insert(0, "clip_id", [str(i) for i in range(21)])
    table.insert(0, "dataset", dataset)
    return table


def toy(happy_au01: float, sad_au02: float, dataset: str = "d") -> pd.DataFrame:
    medians = np.zeros((7, 17))
    medians[0, 0], medians[1, 1] = happy_au01, sad_au02
    table = frames_of(medians, dataset)
    table[UNITS] = table[UNITS].where(np.repeat(medians, 3, axis=0) > 0, 0.0)
    return table


# ---- the release's numbers


def test_the_released_matrix_comes_out_of_its_own_scores():
    scores = logit(published.knowledge("K1"))[:, MEASURED] + 2.5
    assert np.abs(KnowledgeMatrix.from_sum(scores).values - published.knowledge("K2")).max() < 1e-9


def test_fig_4_is_the_same_with_a_lower_constant():
    scores = logit(published.knowledge("K2"))[:, MEASURED]
    figure = KnowledgeMatrix.from_sum(scores, offset=-CENTRE).values
    assert np.abs(figure - published.knowledge("K1")).max() < 1e-9
    assert (np.abs(figure - published.knowledge("figure")) <= 0.005).all()  # all 126 printed cells


def test_release_variant_reproduces_k2_from_frames_of_four_datasets():
    # RELEASE_FORENSICS 1.3: with 2.5 as Fig. 4's constant, S runs from 0.95 to 5.10; split over four datasets
    scores = logit(published.knowledge("K1"))[:, MEASURED] + 2.5
    frames = pd.concat(
        [frames_of(scores * share, name) for name, share in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)],
        ignore_index=True,
    )
    matrix = KnowledgeMatrix.from_frames(frames, variant="release")
    assert np.abs(matrix.values - published.knowledge("K2")).max() < 1e-9
    assert matrix.settings["offset"] == pytest.approx(3.023147108, abs=1e-8)
    assert np.ptp(matrix.sum) == pytest.approx(4.146852892, abs=1e-8)


def test_published_and_release_matrices():
    assert KnowledgeMatrix.published().to_frame().loc["happy", "AU12"] == 0.93
    assert KnowledgeMatrix.release().values[0, 8] == pytest.approx(0.8882934, abs=1e-7)
    assert np.allclose(KnowledgeMatrix.release().weights, 5 * published.knowledge("K2"))
    assert KnowledgeMatrix.published().rank_correlation(KnowledgeMatrix.release()).drop("within_au").min() > 0.98


# ---- hand arithmetic


def test_paper_variant_by_hand():
    frames = pd.concat([toy(4.0, 2.0, name) for name in "abcd"], ignore_index=True)
    matrix = KnowledgeMatrix.from_frames(frames, variant="paper")
    # medians 4, 2 and 0, mid-range 2: first sigmoids s(2), s(0), s(-2); four of each; minus 2.5; sigmoid
    assert matrix.sum[0, 0] == pytest.approx(4 * sigmoid(2))
    assert matrix.values[0, 0] == pytest.approx(sigmoid(4 * sigmoid(2) - 2.5))
    assert matrix.values[1, 1] == pytest.approx(sigmoid(4 * 0.5 - 2.5))
    assert matrix.values[3, 4] == pytest.approx(sigmoid(4 * sigmoid(-2) - 2.5))


def test_release_variant_by_hand():
    frames = pd.concat([toy(4.0, 2.0, "a"), toy(2.0, 1.0, "b")], ignore_index=True)
    matrix = KnowledgeMatrix.from_frames(frames, variant="release")
    assert matrix.sum[0, 0] == 6 and matrix.sum[1, 1] == 3  # mid-range 3
    assert matrix.values[0, 0] == pytest.approx(sigmoid(3)) and matrix.values[1, 1] == pytest.approx(0.5)
    assert matrix.values[2, 2] == pytest.approx(sigmoid(-3))
    assert matrix.medians["b"][0, 0] == 2


def test_the_papers_constant_scales_with_the_number_of_datasets():
    one = KnowledgeMatrix.from_frames(toy(4.0, 2.0), variant="paper")
    assert one.settings["offset"] == pytest.approx(0.625)
    assert one.values[0, 0] == pytest.approx(sigmoid(sigmoid(2) - 0.625))
    assert KnowledgeMatrix.from_frames(toy(4.0, 2.0), offset=2.5).values[1, 1] == pytest.approx(sigmoid(0.5 - 2.5))


def test_au28_three_ways():
    frames = toy(4.0, 2.0)
    frames["AU28_c"] = (frames["expression"] == 5).astype(float)
    frames.loc[frames.index[:1], "AU28_c"] = 1.0  # happy: one frame of three
    grand = KnowledgeMatrix.from_frames(frames, variant="release").values[:, 16]
    assert np.allclose(grand, sigmoid((4 + 2) / (7 * 17) - 2))  # one constant
    row = KnowledgeMatrix.from_frames(frames, variant="release", au28="row_mean").values[:, 16]
    assert row[0] == pytest.approx((sigmoid(2) + 16 * sigmoid(-2)) / 17)
    assert row[1] == pytest.approx((0.5 + 16 * sigmoid(-2)) / 17)
    share = KnowledgeMatrix.from_frames(frames, variant="release", au28="presence").values[:, 16]
    assert share[0] == pytest.approx(1 / 3) and share[5] > 0.999 and share[1] < 0.001


def test_zeros_are_interpolated_within_a_clip_before_the_median():
    frames = toy(4.0, 2.0)
    frames.loc[frames["expression"] == 0, "clip_id"] = "h"
    frames.loc[frames["expression"] == 0, "AU06_r"] = [1.0, 0.0, 3.0]
    frames.loc[frames["expression"] == 0, "AU07_r"] = [0.0, 0.0, 2.0]
    place = [INTENSITY_ACTION_UNITS.index(au) for au in ("AU06", "AU07")]
    assert KnowledgeMatrix.from_frames(frames).medians["d"][0, place].tolist() == [2, 2]
    assert KnowledgeMatrix.from_frames(frames, interpolate="failed").medians["d"][0, place].tolist() == [1, 0]
    assert KnowledgeMatrix.from_frames(frames, interpolate=False).medians["d"][0, place].tolist() == [1, 0]


def test_a_clip_name_used_in_two_datasets_is_two_clips():
    a, b = toy(4.0, 2.0, "a"), toy(2.0, 1.0, "b")
    together = KnowledgeMatrix.from_frames(pd.concat([a, b]))  # both use clip names 0 to 20
    assert np.array_equal(together.medians["a"], KnowledgeMatrix.from_frames(a).medians["a"])


# ---- the filter of Eq. 3


def test_theta_keeps_only_frames_that_the_network_agrees_with():
    frames = toy(4.0, 2.0)
    frames["score"] = 0.9
    happy = frames.index[frames["expression"] == 0]
    frames.loc[happy, "AU01_r"] = [1.0, 2.0, 5.0]
    frames.loc[happy, "score"] = [0.8, 0.5, np.nan]
    assert KnowledgeMatrix.from_frames(frames).medians["d"][0, 0] == 2
    assert KnowledgeMatrix.from_frames(frames, theta=0.5).medians["d"][0, 0] == 1.5  # at least; unknown is not
    kept = KnowledgeMatrix.from_frames(frames, theta=0.8)
    assert kept.medians["d"][0, 0] == 1 and kept.settings["frames"]["d"]["happy"] == 1


def test_an_expression_that_the_filter_empties_is_an_error_or_borrowed():
    frames = pd.concat([toy(4.0, 2.0, "a"), toy(2.0, 1.0, "b")], ignore_index=True)
    frames["score"] = np.where((frames["dataset"] == "b") & (frames["expression"] == 0), 0.1, 1.0)
    with pytest.raises(InputError, match=r"frames of b: happy AU01: found no known value in 0 kept .*theta = 0.5"):
        KnowledgeMatrix.from_frames(frames, theta=0.5)
    borrowed = KnowledgeMatrix.from_frames(frames, theta=0.5, missing="others")
    assert borrowed.medians["b"][0, 0] == 4 and borrowed.settings["filled"] == [["b", "happy"]]


def test_an_expression_that_nobody_has_is_always_an_error():
    frames = toy(4.0, 2.0)
    frames = frames[frames["expression"] != 5]
    with pytest.raises(InputError, match="disgust"):
        KnowledgeMatrix.from_frames(frames, missing="others")


def test_frames_outside_the_seven_and_unknown_values_do_not_count():
    frames = toy(4.0, 2.0)
    extra = frames.iloc[:1].assign(clip_id="x", expression=-1, AU01_r=5.0)
    unknown = frames.iloc[:1].assign(clip_id="y", AU01_r=np.nan)
    both = pd.concat([frames, extra, unknown], ignore_index=True)
    assert np.array_equal(KnowledgeMatrix.from_frames(both).values, KnowledgeMatrix.from_frames(frames).values)


# ---- reading the matrix


@pytest.mark.parametrize(
    "pattern, expression",
    [
        (dict(AU06=4, AU12=4, AU25=2), "happy"),
        (dict(AU01=4, AU02=4, AU05=3, AU25=3, AU26=4), "surprise"),
        (dict(AU04=2, AU07=3, AU09=4, AU10=3), "disgust"),
        (dict(AU04=4, AU05=2, AU07=3, AU23=3), "angry"),
        (dict(AU01=3, AU02=2, AU04=3, AU05=4, AU20=3, AU25=2, AU26=2), "fear"),
    ],
)
def test_fig_4_recognises_the_textbook_patterns(pattern, expression):
    intensity = np.zeros(18)
    for au, value in pattern.items():
        intensity[ACTION_UNITS.index(au)] = value
    scores = KnowledgeMatrix.published().expression_scores(intensity)
    assert EXPRESSIONS[scores.argmax()] == expression and scores.sum() == pytest.approx(1)


def test_scores_keep_leading_axes_and_a_face_at_rest_says_nothing():
    matrix = KnowledgeMatrix.published()
    assert matrix.expression_scores(np.ones((2, 3, 18))).shape == (2, 3, 7)
    assert np.allclose(matrix.expression_scores(np.zeros(18)), 1 / 7)
    assert np.allclose(matrix.expression_scores(np.full(18, np.nan)), 1 / 7)


def test_rank_correlation_equals_scipy_and_knows_scales_do_not_matter():
    matrix, rng = KnowledgeMatrix.published(), np.random.default_rng(0)
    other = rng.random((7, 17))
    found = matrix.rank_correlation(other)
    assert found["sad"] == pytest.approx(stats.spearmanr(matrix.values[1, MEASURED], other[1]).statistic)
    both = matrix.values[:, MEASURED].ravel(), other.ravel()
    assert found["overall"] == pytest.approx(stats.spearmanr(*both).statistic)
    assert np.allclose(matrix.rank_correlation(10 * matrix.values**3), 1)


def test_knowing_only_which_aus_are_common_earns_nothing_within_aus():
    matrix = KnowledgeMatrix.published()
    common = np.repeat(matrix.values.mean(axis=0, keepdims=True), 7, axis=0)
    found = matrix.rank_correlation(common)
    assert found["overall"] > 0.8 and math.isnan(found["within_au"])


# ---- storage and errors


def test_saving_keeps_everything(tmp_path):
    matrix = KnowledgeMatrix.from_frames(toy(4.0, 2.0))
    matrix.save(tmp_path / "k.json")
    again = KnowledgeMatrix.load(tmp_path / "k.json")
    assert np.array_equal(again.values, matrix.values) and np.array_equal(again.sum, matrix.sum)
    assert np.array_equal(again.medians["d"], matrix.medians["d"]) and again.settings == matrix.settings
    KnowledgeMatrix.published().save(tmp_path / "p.json")
    assert KnowledgeMatrix.load(tmp_path / "p.json").sum is None


def test_files_that_are_no_matrix_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    for name in ("a.json", "absent.json"):
        with pytest.raises(InputError, match=name):
            KnowledgeMatrix.load(tmp_path / name)


@pytest.mark.parametrize(
    "change, options, message",
    [
        (dict(expression=9), {}, "column expression: found 9"),
        (dict(AU06_r=5.5), {}, "AU06_r: found 5.5"),
        (dict(), dict(theta=0.5), "no score"),
        (dict(), dict(au28="presence"), "no AU28_c"),
        (dict(), dict(variant="code"), "variant"),
        (dict(), dict(au28="zero"), "au28"),
        (dict(), dict(theta=2), "theta"),
    ],
)
def test_wrong_input_is_named(change, options, message):
    with pytest.raises(InputError, match=message):
        KnowledgeMatrix.from_frames(toy(4.0, 2.0).assign(**change), **options)


def test_scattered_clips_are_refused():
    frames = toy(4.0, 2.0)
    frames.loc[frames.index[-1], "clip_id"] = "0"
    with pytest.raises(InputError, match="several places"):
        KnowledgeMatrix.from_frames(frames)


# ---- separating action units


def planted(seed=0):
    """Seven clips of five frames each; AU12 follows happy, AU04 the person, AU05 is silent; the rest is noise."""
    rng, rows = np.random.default_rng(seed), []
    for e in range(7):
        for c in range(7):
            person = c % 2
            values = rng.random((5, 17))
            values[:, INTENSITY_ACTION_UNITS.index("AU12")] += 3 * (e == 0)
            values[:, INTENSITY_ACTION_UNITS.index("AU04")] = 2 * person + 0.2 * e + 0.01 * c
            values[:, INTENSITY_ACTION_UNITS.index("AU05")] = 0
            rows.append(
                pd.DataFrame(values, columns=UNITS).assign(
                    dataset="d", clip_id=f"{e}-{c}", expression=e, subject=str(person)
                )
            )
    return pd.concat(rows, ignore_index=True)


def test_a_planted_au_separates_and_a_silent_one_does_not():
    table = separating_aus(planted()).set_index("au")
    assert table.index[0] == "AU12" and table.loc["AU12", "highest"] == "happy"
    assert table.loc["AU12", "clips"] == 49 and table.loc["AU12", "expressions"] == 7
    assert table.loc["AU05", ["h", "p", "p_holm", "separates", "highest"]].tolist() == [0, 1, 1, False, ""]


def test_the_statistic_equals_scipy_on_clip_medians():
    frames = planted()
    medians = frames.groupby(["expression", "clip_id"])["AU10_r"].median()
    h, p = stats.kruskal(*[medians[e].to_numpy() for e in range(7)])
    row = separating_aus(frames).set_index("au").loc["AU10"]
    assert row["h"] == pytest.approx(h) and row["p"] == pytest.approx(p)
    assert row["epsilon2"] == pytest.approx(h / 48)  # H / ((n^2 - 1) / (n + 1))


def test_holm_by_hand():
    from audfer.evaluation import holm

    assert np.allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])


def test_taking_the_persons_level_off_uncovers_an_au():
    raw = separating_aus(planted()).set_index("au").loc["AU04", "epsilon2"]
    centred = separating_aus(planted(), centre_by="subject").set_index("au").loc["AU04", "epsilon2"]
    assert raw < 0.5 and centred > 0.9


def test_datasets_are_judged_apart():
    frames = pd.concat([planted(), planted(1).assign(dataset="e")], ignore_index=True)
    table = separating_aus(frames)
    assert table["dataset"].value_counts().tolist() == [17, 17]


@pytest.mark.skipif(not RAVDESS.is_dir(), reason="the shared RAVDESS sample is not here")
def test_the_real_csvs_give_a_matrix_that_agrees_with_fig_4():
    table, labels = table_from_openface_folder(RAVDESS)
    frames = table.labelled("RAVDESS", labels.set_index("clip_id")["expression"])
    matrix = KnowledgeMatrix.from_frames(frames, variant="release")
    assert sum(matrix.settings["frames"]["RAVDESS"].values()) == 5446  # 6241 frames without calm's
    assert matrix.rank_correlation(KnowledgeMatrix.published())["overall"] == pytest.approx(0.799, abs=0.001)
    separating = separating_aus(frames).query("separates")
    assert set(separating["au"]) == {"AU04", "AU06", "AU07", "AU10", "AU12", "AU14"}
    assert separating.set_index("au").loc["AU12", "highest"] == "happy"


def labelled_frames(datasets: int, frames: int = 3) -> pd.DataFrame:
    """Frames of every expression in some datasets, with random intensities."""
    generator, parts = np.random.default_rng(0), []
    for number in range(datasets):
        about = {"dataset": str(number), "clip_id": np.repeat([str(e) for e in range(7)], frames)}
        table = pd.DataFrame({**about, "expression": np.repeat(np.arange(7), frames)})
        values = generator.uniform(0.1, 5, (7 * frames, 17))
        parts.append(table.join(pd.DataFrame(values, columns=list(INTENSITY_COLUMNS))))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("datasets", [1, 2, 3, 4, 5])
def test_a_matrix_of_few_datasets_says_that_it_is_flat_and_can_be_scaled(datasets):
    """The paper's reading subtracts 2.5 from a sum over four: with D datasets the sum counts 4 / D times."""
    frames = labelled_frames(datasets)
    plain, scaled = (KnowledgeMatrix.from_frames(frames, scaled=scale) for scale in (False, True))
    assert bool(plain.flat) == (datasets < 4) and not scaled.flat
    expected = 1 / (1 + np.exp(-(4 / datasets * plain.sum - 2.5)))
    np.testing.assert_allclose(np.delete(scaled.values, ACTION_UNITS.index("AU28"), axis=1), expected)
    if datasets == 4:
        np.testing.assert_array_equal(plain.values, scaled.values)
    if datasets == 1:
        assert "of 1 dataset(s)" in plain.flat and np.ptp(plain.values) < 0.25 < 0.6 < np.ptp(scaled.values)
    assert not KnowledgeMatrix.from_frames(frames, variant="release").flat and not KnowledgeMatrix.published().flat


def test_control_matrices_keep_the_numbers_and_lose_the_meaning():
    base = KnowledgeMatrix.published()
    aus, rows, flat = (
        control_matrix(name, base, seed=3).values for name in ("shuffled-aus", "shuffled-expressions", "uniform")
    )
    # every AU, and every expression, has somebody else's weights, whole
    columns = [tuple(base.values[:, j]) for j in range(18)]
    assert sorted(map(tuple, aus.T)) == sorted(columns) and not any(
        (aus[:, j] == base.values[:, j]).all() for j in range(18)
    )
    assert sorted(map(tuple, rows)) == sorted(map(tuple, base.values)) and not (rows == base.values).all(axis=1).any()
    np.testing.assert_allclose(flat, base.values.mean())
    assert not np.array_equal(aus, control_matrix("shuffled-aus", base, seed=4).values)
    np.testing.assert_array_equal(aus, control_matrix("shuffled-aus", base, seed=3).values)
    np.testing.assert_array_equal(control_matrix("figure4", base).values, published.knowledge("figure"))
    np.testing.assert_array_equal(control_matrix("release", base).values, published.knowledge("K2"))
    np.testing.assert_array_equal(control_matrix("knowledge", base).values, base.values)
    for name in ("none", "train-only", "sideways"):
        with pytest.raises(InputError, match="control_matrix: weights"):
            control_matrix(name, base)
    assert {"none", "knowledge", "train-only"} < set(WEIGHTS)


def test_the_hand_written_prior_is_that_of_ssm_and_weighs_as_any_matrix():
    matrix = KnowledgeMatrix.hand_written()
    assert set(np.unique(matrix.values)) == {0.02, 0.98} and (matrix.values > 0.5).sum(axis=1).tolist() == [
        2,
        3,
        0,
        3,
        2,
        2,
        4,
    ]
    frame = matrix.to_frame()
    assert frame.loc["happy"].nlargest(2).index.tolist() == ["AU06", "AU12"] and frame.loc["neutral"].max() == 0.02
    assert (control_matrix("hand-written", KnowledgeMatrix.published()).values == matrix.values).all()
    assert all(control_matrix(name, matrix) for name in WEIGHTS if name not in ("none", "train-only"))
