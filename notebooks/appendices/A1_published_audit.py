# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A1 · Can the printed numbers be what they say?
#
# Nothing is trained here. The printed tables are held against arithmetic, against the number of clips in each test split and against each
# other; the matrices and weights of the released code are held against the paper's.

# %% tags=["parameters"]
profile = ""  # only says into which folder the tables and figures go
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository

# %%
from audfer.published import audit, printed, release
from audfer.results import figure_data, plots
from audfer.results.outputs import save_figure, save_table
from audfer.study.study import open_study

folder = open_study(profile, work, figures).figures

# %% [markdown]
# **What is checked?** The transcribed tables of the paper and of two neighbours, and how many protocols (folds, pooled folds) each accuracy
# is tried on.

# %% tags=["nbval-check-output"]
printed.overview()

# %% [markdown]
# **What is inconsistent?** Mean of the classes = UAR; mean weighted by clips = WAR; every accuracy a whole number of clips; no copied, swapped
# or shifted cells; the same number wherever a result is printed. Each finding is computed; "beyond" is what rounding cannot explain.

# %%
findings = audit.audit(printed.sheets(), printed.origins())
save_table(
    findings,
    "a1_findings",
    folder,
    "Findings of the consistency checks on the printed tables; beyond: in the printed unit.",
)

# %%
findings.groupby(["kind", "table"], sort=False).size().unstack(fill_value=0)

# %% [markdown]
# **What was each row measured on?** A class accuracy is k of n clips. A protocol that turns all seven into whole clips is proven by that: it
# would happen by accident with the probability in the last column.

# %%
protocols = audit.protocols(printed.sheet("AU-DFER Table 3"))
save_table(
    protocols,
    "a1_protocols",
    folder,
    "Table 3 (DFEW): the test clips that turn each row's class accuracies into whole clips.",
)

# %% [markdown]
# **How many clips are behind each number?** The diagonal of the confusion matrix, read back, with exact binomial (Clopper-Pearson) intervals.

# %%
counts = printed.printed_counts()
save_table(
    counts, "a1_clip_counts", folder, "Clips behind the paper's own rows on DFEW, with exact 95 % intervals in percent."
)

# %% [markdown]
# **Which printed gains exceed noise?** The predictions are not published, so two bounds: as if the networks had been tested on different
# clips (light), and the luckiest pairing, in which no clip that was right before is lost (dark).

# %%
gains = printed.gains()
save_table(
    gains,
    "a1_gains",
    folder,
    "Printed gains of AU-DFER with exact tests: Fisher (unpaired) and McNemar under the best pairing; one training run each.",
)

# %%
save_figure(
    plots.printed_gains(gains),
    "a1_gains_plot",
    gains,
    folder,
    "Printed gains of AU-DFER against the noise of their test clips (95 % bands around no gain); one training run each.",
)

# %% [markdown]
# **And which classes?** Clips right without and with AU, and the share of clips on which the two networks may disagree at most for the
# gain to be significant.

# %% tags=["nbval-check-output"]
gains[gains.measure == "Dis."][
    ["method", "hits_without", "hits_with", "clips", "gain", "p_unpaired", "p_best", "verdict"]
].round(3)

# %%
gains.groupby(["measure", "verdict"], sort=False).size().unstack(fill_value=0)

# %% [markdown]
# **What could these test splits have shown?** The smallest true difference that McNemar's test finds in four of five cases (Connor 1987), in
# points, for different shares of clips on which two networks disagree.

# %%
resolution = printed.resolution()
save_table(
    resolution,
    "a1_resolution",
    folder,
    "Minimum detectable differences (points; 80 % power, 5 % two-sided) of each test split.",
)

# %%
shown = resolution[resolution.measure.isin(["WAR", "UAR", "disgust"])]
shown.pivot(index=["dataset", "protocol", "measure", "clips"], columns="discordance", values="detectable").round(1)

# %% [markdown]
# **Is the released matrix the printed one?** Fig. 4, and the three matrices that are in the release.

# %%
named = figure_data.matrices({name: values for name, values in release.matrices().items() if "version" not in name})
save_figure(
    plots.matrices_by_source(named, digits=2, label="knowledge"),
    "a1_matrices",
    named,
    folder,
    "Fig. 4 as printed and the three matrices found in the release.",
)

# %% tags=["nbval-check-output"]
relations = release.relations()
save_table(relations, "a1_matrix_relations", folder, "How the published knowledge matrices hang together.")
relations[["first", "second", "relation", "detail"]]

# %% [markdown]
# **Are the released weights where they belong?** Vectors that are another expression's or another dataset's; "global" rates outside the range of
# the classes they should mix; frames behind each vector against the annotated ones.

# %% tags=["nbval-check-output"]
copied = release.copied_vectors()
save_table(
    copied, "a1_copied_vectors", folder, "Released positive class weights that equal another expression's or dataset's."
)
copied

# %%
release.global_vectors()

# %%
frames = release.frames_behind()
save_table(
    frames,
    "a1_frames",
    folder,
    "Frames behind each released vector and frames of that expression (training and test together).",
)

# %% [markdown]
# **What does each of it do to the loss?** Eq. 9 in expectation, on one population in which each expression shows each AU at its published rate;
# one thing changed at a time.

# %%
effects, shares = release.loss_effects("DFEW")
save_table(
    effects,
    "a1_loss_effects",
    folder,
    "The AU loss (nats) under the paper's and the release's matrices and weights; shares of the untrained head's loss.",
)

# %%
shares = shares[shares.source.isin(release.DRAWN)]
save_figure(
    plots.matrices_by_source(shares, label="share of the AU loss (%)"),
    "a1_loss_shares",
    shares,
    folder,
    "Which AUs and expressions the AU loss is about: shares of the untrained head's expected loss on DFEW's class counts.",
)
