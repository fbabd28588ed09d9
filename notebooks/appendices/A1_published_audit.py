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
# other; the matrices and weights of the released code are held against the paper's. It is about the paper's section 5 (Tables 1 to 3)
# and section 3 (the matrix of Fig. 4, the weights of Eqs. 6 to 8, the loss of Eq. 9).

# %% tags=["parameters"]
profile = ""  # only says into which folder the tables and figures go
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository

# %%
from audfer.published import audit, printed, release
from audfer.study.study import open_study

study = open_study(profile, work, figures)

# %% [markdown]
# ## What is checked?
#
# The transcribed tables of the paper and of two neighbours, and how many protocols (folds, pooled folds) each accuracy
# is tried on.

# %% tags=["nbval-check-output"]
tables = printed.overview()
print(f"{tables['numbers'].sum()} numbers in {len(tables)} tables")
tables

# %% [markdown]
# ## The arithmetic
#
# Of the $N_e$ test clips of expression $e$ a network gets $h_e$ right, a whole number. Then
#
# $$a_e = \frac{h_e}{N_e}, \qquad \mathrm{UAR} = \frac{1}{7} \sum_e a_e, \qquad \mathrm{WAR} = \frac{\sum_e N_e\, a_e}{\sum_e N_e}$$
#
# On the first row of the paper's Table 2 that is its own, for fold 1 of DFEW, by hand and by the package:

# %% tags=["nbval-check-output"]
sheet = printed.sheet("AU-DFER Table 2")
a, N = sheet.values.loc[sheet.own[0], list(sheet.classes)] / 100, sheet.counts["fold 1"]
h = (a * N).round()
sums = audit.recomputed(sheet).set_index("row").loc[sheet.own[0]]
print(f"{sheet.own[0]}: {h.sum():.0f} of {sum(N)} clips right")
print(f"by hand: UAR {100 * a.mean():.2f}, WAR {100 * h.sum() / sum(N):.2f}")
print(f"package: UAR {sums.mean_recomputed:.2f}, WAR {sums.weighted_recomputed:.2f}")
print(f"printed: UAR {sums.mean_printed}, WAR {sums.weighted_printed}")

# %% [markdown]
# ## What is inconsistent?
#
# Mean of the classes = UAR; mean weighted by clips = WAR; every accuracy a whole number of clips; no copied, swapped
# or shifted cells; the same number wherever a result is printed. Each finding is computed; "beyond" is what rounding cannot explain.

# %%
findings = study.results("a1_findings")
findings.save()

# %%
kinds = findings.frame["kind"].value_counts()
print(f"Commonest: {kinds.index[0]}, {kinds.iloc[0]} of {kinds.sum()} findings.")
findings.frame.groupby(["kind", "table"], sort=False).size().unstack(fill_value=0)

# %% [markdown]
# ## What was each row measured on?
#
# A class accuracy is k of n clips. A protocol that turns all seven into whole clips is proven by that: it
# would happen by accident with the probability in the last column.

# %%
study.results("a1_protocols").save()

# %% [markdown]
# ## And what came after?
#
# S2D, S4D and SSM, with the protocol behind their numbers as far as their authors state it: folds, which epoch is
# taken, what the network starts from, frames, classes.

# %%
study.results("a1_field").save()

# %% [markdown]
# ## How many clips are behind each number?
#
# The diagonal of the confusion matrix, read back, with exact binomial (Clopper-Pearson) intervals.

# %%
study.results("a1_clip_counts").save()

# %% [markdown]
# ## Which printed gains exceed noise?
#
# The predictions are not published, so two bounds: as if the networks had been tested on different
# clips (light), and the luckiest pairing, in which no clip that was right before is lost (dark).

# %%
gains = study.results("a1_gains")
gains.save()

# %%
gains.picture.save()

# %% [markdown]
# ## And which classes?
#
# Clips right without and with AU, and the share of clips on which the two networks may disagree at most for the
# gain to be significant.

# %% tags=["nbval-check-output"]
columns = ["method", "hits_without", "hits_with", "clips", "gain", "p_unpaired", "p_best", "verdict"]
disgust = gains.frame.loc[gains.frame["measure"] == "Dis.", columns].round(3)
print(
    f"Disgust: {(disgust['verdict'] == 'beyond noise however paired').sum()} of {len(disgust)} gains exceed noise however paired."
)
disgust

# %%
print(gains.reading)
gains.frame.groupby(["measure", "verdict"], sort=False).size().unstack(fill_value=0)

# %% [markdown]
# ## What could these test splits have shown?
#
# The smallest true difference that McNemar's test finds in four of five cases (Connor 1987), in
# points, for different shares of clips on which two networks disagree.

# %%
resolution = study.results("a1_resolution")
resolution.save()

# %%
shown = resolution.frame[resolution.frame["measure"].isin(["WAR", "UAR", "disgust"])]
rare = shown.loc[shown["measure"] == "disgust", "detectable"]
print(
    f"Disgust: differences below {rare.min():.1f} to {rare.max():.1f} points would have been missed more often than one time in five."
)
shown.pivot(index=["dataset", "protocol", "measure", "clips"], columns="discordance", values="detectable").round(1)

# %% [markdown]
# ## Is the released matrix the printed one?
#
# Fig. 4, and the three matrices that are in the release.

# %%
study.results("a1_matrices").save()

# %% tags=["nbval-check-output"]
relations = study.results("a1_matrix_relations")
relations.save()
print(relations.reading)
relations.frame[["first", "second", "relation", "detail"]]

# %% [markdown]
# ## Are the released weights where they belong?
#
# Vectors that are another expression's or another dataset's; "global" rates outside the range of
# the classes they should mix; frames behind each vector against the annotated ones.

# %% tags=["nbval-check-output"]
copied = study.results("a1_copied_vectors")
copied.save()
print(copied.reading)
copied.frame

# %%
vectors = release.global_vectors()
print(*(f"{row.dataset}: {row.outside} of {row.of} AUs are outside." for row in vectors.itertuples()))
vectors

# %%
study.results("a1_frames").save()

# %% [markdown]
# ## What does each of it do to the loss?
#
# Eq. 9 in expectation, on one population in which each expression shows each AU at its published rate;
# one thing changed at a time.

# %%
study.results("a1_loss_effects").save()

# %%
study.results("a1_loss_shares").save()
