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
# datasets' own layouts; an estimator trained on an annotated set takes OpenFace's place and writes the same table.

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "" = AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository
faces_seed = 3  # which identities the two contact sheets show
openface_folder = (
    ""  # real OpenFace CSVs (RAVDESS's, or with a labels.csv), or au import's .parquet; "" = rendered clips
)
second_openface_folder = ""  # another extractor's CSVs of the same clips; "" = none

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
from audfer import facs
from audfer.companion.panel import face_panel
from audfer.study.study import open_study

study = open_study(profile, work, figures).look_at(openface_folder, second_openface_folder)
study

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
face_panel(seed=faces_seed) if not openface_folder else "No face is rendered where real AU tables are given."

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
nothing = "No DISFA below AUDFER_DATA, or real AU tables are given: no estimator is trained."
estimator.save() if estimator else nothing

# %% [markdown]
# As a picture: F1 beside what always saying "present" would give, and the correlation of intensities.

# %%
if estimator:
    f1, intensity = estimator.frame["f1"].mean(), estimator.frame["intensity_r"].mean()
    print(f"Mean F1 {f1:.2f}, mean intensity correlation {intensity:.2f}.")
estimator.picture.save() if estimator else nothing

# %% [markdown]
# A recogniser that is trained to look where each AU acts, and that follows AUs over time, is the subject of
# [appendix A3](appendices/A3_lock_and_check.ipynb): its accuracy beside this estimator's, and what better AUs do for AU-DFER.

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
# The same cells for anybody's OpenFace CSVs: `audfer data fetch ravdess` says at its end how to come back here with them.
# Without a folder they show the rendered RAVDESS clips.
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
agreement = study.results("au_agreement", aus=aus)
one_only = "One extractor only: papermill -p second_openface_folder FOLDER for a second one of the same clips."
agreement.save() if agreement else one_only

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
confusion = study.results("au_baseline_confusion", aus=aus)
nobody = "labels.csv has no column subject or actor with two people: nobody can be left out."
confusion.save() if confusion else nobody
