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
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository
openface_folder = ""  # a folder of real OpenFace CSVs with a labels.csv, or au import's .parquet of it; "": none

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import numpy as np
import pandas as pd
from scipy.special import expit, logit

from audfer import published
from audfer.facs import INTENSITY_ACTION_UNITS
from audfer.knowledge import KnowledgeMatrix
from audfer.openface import INTENSITY_COLUMNS
from audfer.study.study import open_study

study = open_study(profile, work, figures).look_at(openface_folder)
study

# %% [markdown]
# ## The equations (section 3.1)
#
# In our notation: what Eqs. 1 to 3 define, not as they are printed. OpenFace gives each of a clip's $n$ frames the intensity of 17
# AUs and the presence of 18:
#
# $$r_i \in [0, 5]^{17}, \quad c_i \in \{0, 1\}^{18}, \quad i = 1, \dots, n \tag{1, 2}$$
#
# A frame counts for expression $e$ where a trained network gives its label $y_i = e$ a score $s_i$ of at least $\theta$:
#
# $$F_e = \{i : y_i = e,\; s_i \ge \theta\} \tag{3}$$
#
# The matrix $M_d$ of dataset $d$ holds the medians of $r_i$ over $F_e$. It is centred, squashed by $\sigma(x) = 1 / (1 + e^{-x})$, summed, and
# centred and squashed again:
#
# $$K = \sigma\Big(\sum_{d=1}^{4} \sigma\big(M_d - \tfrac{1}{2}(\max M_d + \min M_d)\big) - 2.5\Big)$$
#
# On a small batch of random frames, written out and as the package computes it:

# %% tags=["nbval-check-output"]
draw, theta = np.random.default_rng(0), 0.1
batch = pd.DataFrame({"dataset": np.repeat([*"abcd"], 35), "expression": np.tile(np.arange(7).repeat(5), 4)})
batch["clip_id"], batch["score"] = batch["dataset"] + batch["expression"].astype(str), draw.uniform(size=140)
batch[list(INTENSITY_COLUMNS)] = draw.uniform(0.1, 5, (140, 17))

total = 0
for _, frames in batch[batch["score"] >= theta].groupby("dataset"):
    medians = frames.groupby("expression")[list(INTENSITY_COLUMNS)].median().to_numpy()
    total = total + expit(medians - (medians.max() + medians.min()) / 2)
formula = expit(total - 2.5)
package = KnowledgeMatrix.from_frames(batch, theta=theta).to_frame()[list(INTENSITY_ACTION_UNITS)]
print(f"{(batch['score'] >= theta).sum()} of {len(batch)} frames pass Eq. 3")
print("the package computes the formula:", np.allclose(package, formula))

# %% [markdown]
# ## What is published?
#
# Fig. 4 and the matrix in the authors' code are not the same numbers: their logits differ by one constant.

# %% tags=["nbval-check-output"]
shift = logit(published.knowledge("K1")) - logit(published.knowledge("K2"))
print(f"constant between Fig. 4 and the release: {shift.mean():.6f} (spread over 126 cells {np.ptp(shift):.0e})")
print("largest knowledge in Fig. 4:", f"{published.knowledge('figure').max():.2f}")

# %% [markdown]
# ## What are the medians in each dataset?

# %%
study.results("knowledge_by_dataset").save()

# %% [markdown]
# ## What is their sum?
#
# The matrix S before the last step.

# %%
study.results("knowledge_sum").save()

# %% [markdown]
# ## Fig. 4: what is the knowledge matrix, and how does the paper's look?

# %%
study.results("fig4").save()

# %% [markdown]
# ## Was the planted knowledge recovered?
#
# Every step from pixels to matrix is real; only this cell may look at what was planted.

# %%
study.results("knowledge_recovery").save()

# %% [markdown]
# ## How much hangs on the readings?
#
# The paper's text and its released code differ, AU28 can be filled in three ways, and
# the interpolation of zeros is a choice. Rank correlations are over the 17 measured AUs.

# %%
study.results("knowledge_variants").save()

# %% [markdown]
# ## What does the filter of Eq. 3 do?
#
# Frames are kept where a trained M3DFEL gives the label at least theta. The paper does
# not give theta; 0 keeps every frame.

# %%
study.results("knowledge_theta").save()

# %% [markdown]
# ## And on real faces?
#
# With `openface_folder` set, the same cells run on OpenFace's CSVs of real clips.

# %%
study.results("real_knowledge", openface_folder=openface_folder).save()

# %% [markdown]
# ## Which AUs separate the seven expressions there?
#
# Kruskal-Wallis test on clip medians, Holm-corrected over the AUs.

# %%
study.results("real_separating_aus", openface_folder=openface_folder).save()

# %% [markdown]
# ## Is the matrix worth anything as a prior where few people's clips have labels?
#
# A classifier of AUs whose weights are drawn
# to Fig. 4, to Fig. 4 with its AUs shuffled, or to zero, judged on the people without labels.

# %%
study.results("few_labels", openface_folder=openface_folder).save()
