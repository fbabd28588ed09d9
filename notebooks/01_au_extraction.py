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
# # 01 · From clips to action units
#
# Which action units (AUs) does a face show, frame by frame? Section 3.1 of the paper runs OpenFace on videos of four
# datasets. Without those videos the same chain runs here on *rendered* faces whose AUs are known, written to disk in the
# datasets' own layouts; an estimator trained on an annotated set takes OpenFace's place and writes the same table. AU
# tables of your own are looked at in the last section.

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository
dataset = ""  # one dataset alone: DFEW, FERV39k or MAFW; "": those of the profile
clip = ""  # clip_id of the training clip that notebooks 01 and 03 follow; "": the first of the dataset
faces_seed = 3  # which identities the two contact sheets show
openface_folder = ""  # real OpenFace CSVs (RAVDESS's, or with a labels.csv), or au import's .parquet; "": rendered
second_openface_folder = ""  # another extractor's CSVs of the same clips; "": none

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import numpy as np

from audfer import facs, losses
from audfer.companion.panel import face_panel
from audfer.study.study import open_study

study = open_study(profile, work, figures, dataset=dataset).look_at(openface_folder, second_openface_folder)
study

# %% [markdown]
# ## What is measured? (section 3.1)
#
# Each of a clip's $n$ frames has intensities $r_i \in [0, 5]^{17}$ and presences $c_i \in \{0, 1\}^{18}$ (Eqs. 1 and 2, notebook 02).
# The medians of $r_i$ make the knowledge matrix; the presences make the clip's AU labels, which the networks learn (Eq. 4, notebook 03):
#
# $$t_j = 1 \quad \text{where} \quad \sum_{i=1}^{n} c_{ij} \ge n / 2$$

# %% tags=["nbval-check-output"]
c = np.random.default_rng(0).integers(0, 2, (6, 18))
t = c.sum(0) >= len(c) / 2
print(f"{t.sum()} of 18 AUs are active in {len(c)} random frames")
print("the package computes the formula:", np.array_equal(t, losses.clip_au_labels(c)))

# %% [markdown]
# ## Which AUs?
#
# OpenFace gives presence (0 or 1) for 18 and intensity (0 to 5) for 17 of them; AU28 has no intensity.

# %% tags=["nbval-check-output"]
print(len(facs.ACTION_UNITS), "AUs:", *facs.ACTION_UNITS)
print(
    len(facs.INTENSITY_ACTION_UNITS),
    "with intensity; without:",
    *set(facs.ACTION_UNITS) - set(facs.INTENSITY_ACTION_UNITS),
)

# %% [markdown]
# ## What does each AU look like on the rendered faces?
#
# A row is an AU, cut out where it acts; each block is one person at intensities 0, 3 and 5.

# %%
study.results("contact_sheet_action_units", seed=faces_seed).save()

# %% [markdown]
# ## And an expression over time?
#
# Onset, apex and offset of the seven expressions.

# %%
study.results("contact_sheet_expressions", seed=faces_seed).save()

# %% [markdown]
# **Try it:** move a slider and see the face, and which expression the paper's knowledge matrix makes of it (JupyterLab; a
# static picture when the notebook runs without a person).

# %%
face_panel(seed=faces_seed)

# %% [markdown]
# ## What is on disk?
#
# Clips as each dataset's reader finds them, with the share of each class beside the real dataset's.

# %%
study.results("class_frequencies").save()

# %% [markdown]
# ## How good is the AU extractor on people it has not seen?
#
# A small residual network with two linear heads (presence of 18,
# intensity of 17). The one that ships with the package has learned from other rendered people (`audfer/pretrained`, with a card;
# `make pretrained` trains it again) and is judged here on everybody of an annotated set in DISFA's layout.

# %%
estimator = study.results("au_estimator")
estimator.save()

# %% [markdown]
# As a picture: F1 beside what always saying "present" would give, and the correlation of intensities.

# %%
estimator.picture.save()

# %% [markdown]
# A recogniser that is trained to look where each AU acts, and that follows AUs over time, is the subject of
# [appendix A3](appendices/A3_lock_and_check.ipynb): its accuracy beside this estimator's, and what better AUs do for AU-DFER.

# %% [markdown]
# ## One clip, from pixels to labels
#
# Its picture on disk, the faces that networks see with their landmarks, the AUs of every frame, and what becomes of them
# in the clip. Notebook 03 follows it into a network, up to its loss.

# %%
study.results("one_clip", clip=clip).save()

# %% [markdown]
# ## How often is each AU found in the clips?
#
# The estimator, or OpenFace's CSVs, on every frame of every clip.

# %%
study.results("presence_rates").save()

# %% [markdown]
# ## What does the interpolation of zeros do?
#
# Section 3.1 fills zeros "sample-wise" by linear interpolation. Chosen here:
# within a clip and an AU every exact zero counts as missing; ends take the nearest value; an AU that is zero throughout stays zero.

# %%
study.results("interpolation").save()

# %% [markdown]
# ## AU tables of real clips
#
# For anybody's OpenFace CSVs: give the parameter `openface_folder` (`audfer data fetch ravdess` says at its end how), and this
# section alone is made, of them. Without a folder it shows the rendered RAVDESS clips.
#
# ### Which clips?

# %%
aus = study.au_clips(openface_folder, second_openface_folder)
aus

# %% [markdown]
# ### Is every clip covered?
#
# Failed: no face was tracked. Unknown: also frames whose AUs were smoothed over a failed one.

# %%
study.results("au_coverage", aus=aus).save()

# %% [markdown]
# ### How often is each AU present in each expression?
#
# Whole clips are drawn again for the intervals, because frames of a clip
# resemble each other.

# %%
study.results("au_presence", aus=aus).save()

# %% [markdown]
# ### Do two extractors agree on the same clips?
#
# For rendered clips the second one is what was planted.

# %%
study.results("au_agreement", aus=aus).save()

# %% [markdown]
# ### How far do AUs alone go?
#
# Mean, deviation and maximum of the 17 intensities over a clip, standardised on the training clips;
# logistic regression. One person is left out at a time, or a dataset's test clips, as in notebook 03, whose networks see the pixels.

# %%
baseline = study.results("au_baseline", aus=aus)
baseline.save()

# %% [markdown]
# As a picture:

# %%
baseline.picture.save()

# %% [markdown]
# ### Which expressions does it mix up?
#
# Percent of the true class, and the number of clips.

# %%
study.results("au_baseline_confusion", aus=aus).save()
