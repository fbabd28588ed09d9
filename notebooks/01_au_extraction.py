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
profile = ""  # smoke, laptop, gpu, paper, or a path to a .toml file; "" = AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository
faces_seed = 3  # which identities the two contact sheets show
openface_folder = ""  # a folder of real OpenFace CSVs (RAVDESS's, or with a labels.csv); "" = rendered clips
second_openface_folder = ""  # another extractor's CSVs of the same clips; "" = none

# %% [markdown]
# **Which study?** The profile's numbers, and where everything is made.

# %%
from audfer import facs
from audfer.action_units import baseline, comparison
from audfer.companion.panel import face_panel
from audfer.results import figure_data, plots, tables
from audfer.results.outputs import save_figure, save_table
from audfer.study.study import open_study
from audfer.synth import sheets

study = open_study(profile, work, figures)
study

# %% [markdown]
# **Which AUs?** OpenFace gives presence (0 or 1) for 18 and intensity (0 to 5) for 17 of them; AU28 has no intensity.

# %% tags=["nbval-check-output"]
print(len(facs.ACTION_UNITS), "AUs:", *facs.ACTION_UNITS)
print(
    len(facs.INTENSITY_ACTION_UNITS),
    "with intensity; without:",
    *set(facs.ACTION_UNITS) - set(facs.INTENSITY_ACTION_UNITS),
)

# %% [markdown]
# **What does each AU look like on the rendered faces?** A row is an AU, each block one identity at intensities 0, 1, 3, 5.

# %%
sheet = sheets.contact_sheet(faces_seed)
save_figure(
    plots.contact_sheet_action_units(sheet),
    "contact_sheet_action_units",
    figure_data.sheet_data(sheet),
    study.figures,
    "Rendered faces: 18 AUs at intensities 0, 1, 3 and 5 (left to right in each block), three identities.",
)

# %% [markdown]
# **And an expression over time?** Onset, apex and offset of the seven expressions.

# %%
save_figure(
    plots.contact_sheet_expressions(sheet),
    "contact_sheet_expressions",
    figure_data.sheet_data(sheet),
    study.figures,
    "Rendered faces: prototypes of the seven expressions from onset over apex to offset.",
)

# %% [markdown]
# **Try it:** move a slider and see the face, and which expression the paper's knowledge matrix makes of it (JupyterLab; a
# static picture when the notebook runs without a person).

# %%
face_panel(seed=faces_seed)

# %% [markdown]
# **What is on disk?** Clips as each dataset's reader finds them, with the share of each class beside the real dataset's.

# %%
counts = study.class_counts()
data = figure_data.frequency_data(counts)
save_figure(
    plots.class_frequencies(data),
    "class_frequencies",
    data,
    study.figures,
    f"Training clips of each expression; lines: the real datasets. {study.caption}",
)

# %% [markdown]
# **How good is the AU estimator on people it has not seen?** A small residual network with two linear heads (presence of 18,
# intensity of 17), trained on the annotated set in DISFA's layout; a third of its subjects are held out.

# %%
if study.has_annotated_set:
    accuracy = study.estimator_accuracy
    show = save_table(
        accuracy,
        "au_estimator",
        study.figures,
        f"AU estimator on held-out subjects: F1 of presence (code of at least "
        f"2, DISFA's rule), correlation of intensity; intervals: bootstrap over subjects. {study.caption}",
    )
else:
    show = "No DISFA below AUDFER_DATA: no estimator is trained, AUs come from OpenFace's CSVs."
show

# %% [markdown]
# **The same as a picture:** F1 beside what always saying "present" would give, and the correlation of intensities.

# %%
if study.has_annotated_set:
    print(f"Mean F1 {accuracy['f1'].mean():.2f}, mean intensity correlation {accuracy['intensity_r'].mean():.2f}.")
    show = save_figure(
        plots.estimator_accuracy(accuracy),
        "au_estimator_plot",
        accuracy,
        study.figures,
        f"AU estimator on held-out subjects. {study.caption}",
    )
show

# %% [markdown]
# A recogniser that is trained to look where each AU acts, and that follows AUs over time, is the subject of
# [appendix A3](appendices/A3_lock_and_check.ipynb): its accuracy beside this estimator's, and what better AUs do for AU-DFER.

# %% [markdown]
# **How often is each AU found in the clips?** The estimator, or OpenFace's CSVs, on every frame of every clip.

# %%
data = study.presence_rates()
save_figure(
    plots.presence_rates(data),
    "presence_rates",
    data,
    study.figures,
    f"Share of frames in which the AU is present, by expression. {study.caption}",
)

# %% [markdown]
# **What does the interpolation of zeros do?** Section 3.1 fills zeros "sample-wise" by linear interpolation. Chosen here:
# within a clip and an AU every exact zero counts as missing; ends take the nearest value; an AU that is zero throughout stays zero.

# %%
data = study.interpolation_example()
save_figure(
    plots.interpolation(data),
    "interpolation",
    data,
    study.figures,
    f"One clip's AU intensities before and after the interpolation of zeros. {study.caption}",
)

# %% [markdown]
# ## AU tables of real clips
#
# The same cells for anybody's OpenFace CSVs: `audfer data fetch ravdess` says at its end how to come back here with them.
# Without a folder they show the rendered RAVDESS clips.
#
# **Which clips?**

# %%
aus = study.au_clips(openface_folder, second_openface_folder)
aus

# %% [markdown]
# **Is every clip covered?** Failed: no face was tracked. Unknown: also frames whose AUs were smoothed over a failed one.

# %%
data = comparison.coverage_by_expression(aus.first, aus.clips)
save_table(
    tables.Table(
        comparison.coverage(aus.first),
        data.round(1),
        f"Coverage of {aus.name} by {aus.extractors[0]}; the csv has a row a clip. {aus.caption}",
    ),
    aus.stem + "au_coverage",
    study.figures,
)

# %% [markdown]
# **How often is each AU present in each expression?** Whole clips are drawn again for the intervals, because frames of a clip
# resemble each other.

# %%
data = comparison.presence_rates_with_intervals(aus.first, aus.clips, aus.name)
save_figure(
    plots.presence_intervals(data),
    aus.stem + "au_presence",
    data,
    study.figures,
    f"Frames with the AU present by {aus.extractors[0]}, with 95 % intervals over clips. {aus.caption}",
)

# %% [markdown]
# **Do two extractors agree on the same clips?** For rendered clips the second one is what was planted.

# %%
if aus.second is not None:
    data = comparison.extractor_agreement(aus.first, aus.second)
    show = save_figure(
        plots.extractor_agreement(data),
        aus.stem + "au_agreement",
        data,
        study.figures,
        f"Agreement of {aus.extractors[0]} and {aus.extractors[1]}, frame by frame. {aus.caption}",
    )
else:
    show = "One extractor only: papermill -p second_openface_folder FOLDER for a second one of the same clips."
show

# %% [markdown]
# **How far do AUs alone go?** Mean, deviation and maximum of the 17 intensities over a clip, standardised on the training clips;
# logistic regression. One person is left out at a time, or a dataset's test clips, as in notebook 03, whose networks see the pixels.

# %%
data = study.au_baselines(aus)
save_table(
    tables.baseline_table(
        data, f"AU-only baseline (51 numbers a clip, logistic regression); intervals over clips. {aus.caption}"
    ),
    aus.stem + "au_baseline",
    study.figures,
)

# %% [markdown]
# **The same as a picture:**

# %%
save_figure(
    plots.au_baselines(data),
    aus.stem + "au_baseline_plot",
    data,
    study.figures,
    f"AU-only baseline, 95 % intervals over clips. {aus.caption}",
)

# %% [markdown]
# **Which expressions does it mix up?** Percent of the true class, and the number of clips.

# %%
if aus.people > 1:
    data = baseline.baseline_confusion(baseline.au_baseline(baseline.clip_features(aus.first), aus.clips))
    caption = f"AU-only baseline on {aus.name}, one person left out at a time; AUs: {aus.extractors[0]}. {aus.caption}"
    stem = aus.stem + "au_baseline_confusion"
    show = save_figure(plots.confusion(data).figure, stem, data, study.figures, caption)
else:
    show = "labels.csv has no column subject or actor with two people: nobody can be left out."
show
