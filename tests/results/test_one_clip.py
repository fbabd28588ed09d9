"""One clip from pixels to loss: its numbers by hand and by the package, its pictures, and a clip that is not there."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from audfer.errors import InputError
from audfer.facs import ACTION_UNITS, EXPRESSIONS
from audfer.losses import AULoss, expression_loss


def test_a_clip_is_followed_from_pixels_to_labels(study, tmp_path):
    shown = study.results("one_clip")
    packed, table = study.packed("DFEW"), study.au_table("DFEW")
    clip = packed.clip_ids[packed.split("train")[0]]
    track = table.clip(clip)
    numbers = shown.frame.pivot(index="frame", columns="action_unit", values="presence")[list(ACTION_UNITS)]
    np.testing.assert_array_equal(numbers, track.presence)
    by_unit = shown.frame.groupby("action_unit").first().loc[list(ACTION_UNITS)]
    np.testing.assert_array_equal(by_unit["active"], track.presence.sum(0) >= len(track) / 2)
    measured = by_unit["median"].drop("AU28")
    np.testing.assert_allclose(measured, np.median(track.intensity, axis=0), rtol=1e-6)
    assert np.isnan(by_unit.loc["AU28", "median"])
    assert clip in shown.caption and EXPRESSIONS[packed.expressions[packed.split("train")[0]]] in shown.caption
    assert f"Over {len(track)} frames" in shown.reading

    figure = shown.plot()
    pictures = [axes for part in figure.subfigs[:1] for axes in part.axes]
    faces = len(np.unique(packed.frame_numbers[packed.split("train")[0]]))
    assert len(pictures) == 1 + min(faces, 6) and not pictures[0].lines and all(one.lines for one in pictures[1:])
    for axes in pictures[1:]:
        x, y = axes.lines[0].get_data()
        side = axes.images[0].get_array().shape[0]
        assert len(x) == 68 and 0 < np.nanmin(x) < np.nanmax(x) < side and 0 < np.nanmin(y) < np.nanmax(y) < side
    plt.close(figure)
    saved = shown.save(tmp_path)
    assert all(path.is_file() for path in saved.paths) and "Over" in saved.html


def test_the_same_clip_is_followed_into_a_network_up_to_its_loss(study):
    shown = study.results("one_clip_loss")
    parts = {kind: part.set_index("name") for kind, part in shown.frame.groupby("kind")}
    p, q = (torch.tensor(parts[kind]["output"].to_numpy(float)) for kind in ("expression", "action unit"))
    packed, grid = study.packed("DFEW"), study.profile.grid
    y = torch.tensor([packed.expressions[packed.split("train")[0]]])
    assert p.sum() == pytest.approx(1, abs=1e-5) and parts["expression"]["label"].to_numpy().argmax() == y.item()

    # the package's losses, which take logits
    record = study.run([study.cell(grid.ratio_model, "DFEW", grid.au_ratio)])[0]
    au_loss = AULoss(study.knowledge(), torch.tensor(record.positive_weights))
    labels = torch.tensor(parts["action unit"]["label"].to_numpy(float))[None].float()
    wanted = expression_loss(p.log()[None], y), au_loss(torch.logit(q)[None], labels, y)
    total = parts["total"]["loss"]
    assert [total["L_e"], total["L_AU"]] == pytest.approx([float(one) for one in wanted], rel=1e-4)
    ratio = grid.au_ratio
    assert total["L"] == pytest.approx((1 - ratio) * total["L_e"] + ratio * total["L_AU"])
    assert f"{total['L']:.3f}" in shown.caption
    labels_of_01 = study.results("one_clip").frame.groupby("action_unit")["active"].first()
    np.testing.assert_array_equal(parts["action unit"]["label"], labels_of_01.loc[list(ACTION_UNITS)])
    plt.close(shown.plot())


def test_another_clip_is_followed_by_its_name_and_one_that_is_not_there_is_a_sentence(study):
    clip = study.packed("DFEW").clip_ids[7]
    assert clip in study.results("one_clip", clip=clip).caption
    for name in ("one_clip", "one_clip_loss"):
        with pytest.raises(InputError, match="clip: found 'nobody', expected a clip of DFEW with"):
            study.results(name, clip="nobody")
