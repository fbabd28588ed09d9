"""Knowledge as a prior: the classifier against scikit-learn, and what right, wrong and no knowledge do."""

import numpy as np
import pandas as pd
import pytest
from paths import SHARED
from sklearn.linear_model import LogisticRegression

from audfer.action_units.few_labels import PRIORS, few_labels, fit, prior_weights
from audfer.action_units.table import table_from_openface_folder
from audfer.errors import InputError
from audfer.facs import EXPRESSIONS
from audfer.knowledge import KnowledgeMatrix
from audfer.openface import INTENSITY_COLUMNS
from audfer.results.few_labels import draw

RAVDESS = SHARED / "data" / "ravdess_openface"


def clips(people: int, each: int = 2, noise: float = 0.6, seed: int = 0):
    """Clips of people whose AUs go by Fig. 4: frames, and whose they are."""
    generator, rows, whose = np.random.default_rng(seed), [], {}
    weights = prior_weights(KnowledgeMatrix.published())
    weights = weights / weights.std(1, keepdims=True)
    for person in range(people):
        own = generator.normal(0, noise, 17)
        for expression in range(7):
            for take in range(each):
                name = f"{person}-{expression}-{take}"
                whose[name] = str(person)
                values = np.clip(1.5 + 0.5 * weights[expression] + own + generator.normal(0, noise, 17), 0, 5)
                rows.append({"clip_id": name, "expression": expression, **dict(zip(INTENSITY_COLUMNS, values))})  # noqa: B905
    return pd.DataFrame(rows), pd.Series(whose)


def test_without_a_prior_it_is_scikit_learns():
    frames, _ = clips(3)
    values, truth = frames[list(INTENSITY_COLUMNS)].to_numpy(), frames["expression"].to_numpy()
    scaled = (values - values.mean(0)) / values.std(0)
    theirs = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(scaled, truth)
    ours = fit(values, truth)(values)
    shares = np.exp(ours) / np.exp(ours).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, theirs.predict_proba(scaled), atol=0.01)


def test_with_a_strong_prior_it_is_the_matrix_alone():
    frames, _ = clips(1)
    values, truth = frames[list(INTENSITY_COLUMNS)].to_numpy(), frames["expression"].to_numpy()
    weights = prior_weights(KnowledgeMatrix.published())
    ours = fit(values, truth, weights, penalty=1e9)(values)
    alone = values @ weights.T
    change = ours - alone
    np.testing.assert_allclose(change - change.mean(0), 0, atol=1e-4)  # but for a bias of each expression
    labels = np.array([0, 0, 1])  # five expressions have no clip at all
    assert np.isfinite(fit(values[:3], labels)(values)).all()


def test_right_knowledge_helps_most_where_labels_are_fewest_and_shuffled_knowledge_does_not():
    frames, people = clips(6, noise=0.9)
    found = few_labels(frames, people, other=KnowledgeMatrix.release(), draws=6)
    assert set(found["prior"]) == set(PRIORS) and set(found["labelled"]) == {1, 2, 3, 4, 5}
    assert (found.loc[found["labelled"] == 3, "draws"] == 6).all() and (found["low"] <= found["uar"]).all()
    uar = found.set_index(["labelled", "prior"])["uar"]
    assert uar[1, "figure"] > uar[1, "none"] + 3 > uar[1, "shuffled"]
    assert uar[1, "figure"] - uar[1, "none"] > uar[5, "figure"] - uar[5, "none"]
    pd.testing.assert_frame_equal(found, few_labels(frames, people, KnowledgeMatrix.release(), draws=6))
    assert len(draw(found).lines) == 5


@pytest.mark.parametrize("wrong", ["one person", "nobody known", "some unknown"])
def test_people_have_to_be_known(wrong):
    frames, people = clips(2)
    if wrong == "one person":
        people[:] = "0"
    else:
        people.iloc[:: 1 if wrong == "nobody known" else 3] = ""
    with pytest.raises(InputError, match="a person for every clip"):
        few_labels(frames, people)


@pytest.mark.skipif(not RAVDESS.is_dir(), reason="RAVDESS's OpenFace tables are not on this machine")
def test_figure_4_helps_a_classifier_that_has_seen_one_real_person():
    table, labels = table_from_openface_folder(RAVDESS)
    labels = labels.set_index("clip_id")
    found = few_labels(table.labelled("real", labels["expression"]), labels["actor"]).set_index("prior")
    assert found["draws"].tolist() == [2, 2, 2] and found.loc["figure", "better"] == 2
    assert found.loc["figure", "uar"] > found.loc["none", "uar"] + 5 > found.loc["shuffled", "uar"]
    assert EXPRESSIONS and found.loc["figure", "uar"] == pytest.approx(300 / 7, abs=0.1)  # 21 of 49 clips
