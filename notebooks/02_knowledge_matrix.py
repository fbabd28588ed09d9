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
# # 02 · The knowledge matrix
#
# Which AUs go with which expression? Section 3.1: the median intensity of each AU over all frames of an expression, per
# dataset; centred and squashed; summed over the four datasets; centred and squashed again: a 7 x 18 matrix between 0 and 1.

# %% tags=["parameters"]
profile = ""  # smoke, laptop, gpu, paper, or a path to a .toml file; "" = AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository
openface_folder = ""  # a folder of real OpenFace CSVs with a labels.csv; "" = none

# %% [markdown]
# **Which study?** The profile's numbers, and where everything is made.

# %%
import numpy as np
from scipy.special import logit

from audfer import knowledge, published
from audfer.action_units.table import table_from_openface_folder
from audfer.results import figure_data, plots
from audfer.results.outputs import save_figure, save_table
from audfer.study.study import open_study

study = open_study(profile, work, figures)
study

# %% [markdown]
# **What is published?** Fig. 4 and the matrix in the authors' code are not the same numbers: their logits differ by one constant.

# %% tags=["nbval-check-output"]
shift = logit(published.knowledge("K1")) - logit(published.knowledge("K2"))
print(f"constant between Fig. 4 and the release: {shift.mean():.6f} (spread over 126 cells {np.ptp(shift):.0e})")
print("largest knowledge in Fig. 4:", f"{published.knowledge('figure').max():.2f}")

# %% [markdown]
# **What are the medians in each dataset?**

# %%
matrix = study.knowledge()
data = figure_data.matrices(matrix.medians)
save_figure(
    plots.knowledge_by_dataset(data),
    "knowledge_by_dataset",
    data,
    study.figures,
    f"Median AU intensity of the frames of each expression, zeros interpolated. {study.caption}",
)

# %% [markdown]
# **What is their sum?** The matrix S before the last step.

# %%
data = figure_data.matrix(matrix.sum, "sum")
save_figure(
    plots.heatmap(data, title="S: sum over the four datasets").figure,
    "knowledge_sum",
    data,
    study.figures,
    f"S of section 3.1 ({matrix.variant} reading). {study.caption}",
)

# %% [markdown]
# **What is the knowledge matrix, and how does the paper's look?** (Fig. 4)

# %%
data = figure_data.fig4_data(matrix.values)
save_figure(
    plots.fig4(data),
    "fig4_knowledge",
    data,
    study.figures,
    f"Fig. 4. Knowledge matrix ({matrix.variant} reading), ours above and the paper's printed one below. "
    f"AU28 has no intensity behind it and is left out of the rank correlations. {study.caption}",
)

# %% [markdown]
# **Was the planted knowledge recovered?** Every step from pixels to matrix is real; only this cell may look at what was planted.

# %%
if study.profile.embedded:
    planted = study.planted_medians()
    data = figure_data.recovery_data(planted, matrix.values)
    rank = figure_data.rank_correlations(planted, matrix.values)
    overall, rest = rank["overall"], rank.drop("overall")
    parts = f"by expression {rest.min():.2f} to {rest.max():.2f}."
    print(f"Spearman rank correlation with what was planted, over 119 cells: {overall:.2f}; {parts}")
    caption = f"Planted median intensities against the recovered knowledge matrix. {study.caption}"
    show = save_figure(plots.recovery(data).figure, "knowledge_recovery", data, study.figures, caption)
else:
    show = "Nothing was planted in real clips."
show

# %% [markdown]
# **How much hangs on the readings?** The paper's text and its released code differ, AU28 can be filled in three ways, and
# the interpolation of zeros is a choice. Rank correlations are over the 17 measured AUs.

# %%
data = study.knowledge_variants()
save_table(
    data,
    "knowledge_variants",
    study.figures,
    f"Readings of section 3.1: rank correlation with the profile's matrix, with Fig. 4 and with the planted truth. {study.caption}",
)

# %% [markdown]
# **What does the filter of Eq. 3 do?** Frames are kept where a trained M3DFEL gives the label at least theta. The paper does
# not give theta; 0 keeps every frame.

# %%
data = study.theta_grid()
save_table(data, "knowledge_theta", study.figures, f"Threshold theta of Eq. 3. {study.caption}")

# %% [markdown]
# **And on real faces?** With `openface_folder` set, the same cells run on OpenFace's CSVs of real clips.

# %%
if openface_folder:
    table, labels = table_from_openface_folder(openface_folder)
    real = table.labelled("real", labels.set_index("clip_id")["expression"])
    real_matrix = knowledge.KnowledgeMatrix.from_frames(real, variant=study.profile.grid.knowledge)
    data = figure_data.fig4_data(real_matrix.values)
    caption = f"Knowledge matrix of the real OpenFace CSVs in {openface_folder}, above the paper's Fig. 4."
    show = save_figure(plots.fig4(data), "real_knowledge", data, study.figures, caption)
else:
    show = "No folder given: papermill -p openface_folder FOLDER, or audfer reproduce -p openface_folder FOLDER."
show

# %% [markdown]
# **Which AUs separate the seven expressions there?** Kruskal-Wallis test on clip medians, Holm-corrected over the AUs.

# %%
if openface_folder:
    data = knowledge.separating_aus(real)
    show = save_table(
        data, "real_separating_aus", study.figures, f"AUs that separate the expressions in {openface_folder}."
    )
show
