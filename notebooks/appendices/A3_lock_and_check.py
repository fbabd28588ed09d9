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
# # A3 · Lock and Check: a better recogniser of action units
#
# AU-DFER leans on an extractor of action units and names its accuracy as a limit. *Lock and Check* (LAC, submitted to IEEE Transactions on
# Affective Computing, 2025) is the recogniser of this companion. **Lock**: the cosine between an AU's class weights and the backbone's features is
# a map; training pulls it into the two regions of the face where the AU acts. **Check**: AUs of the upper, middle and lower face look at
# each other, the less certain they are the more, and an LSTM follows each AU over 16 frames. At inference no regions are needed.
# Its own paper's tables and figures on rendered faces; numbered as in that paper.

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import torch

from audfer.facs import ACTION_UNITS
from audfer.lock_and_check import losses, regions
from audfer.lock_and_check import study as recognition
from audfer.study.study import open_study

study = open_study(profile, work, figures)
if not recognition.has_annotated_set(study):
    print(
        "No DISFA or BP4D below AUDFER_DATA: there is nothing to train a recogniser on, and what needs one stays empty."
    )
study

# %% [markdown]
# ## The equations
#
# As that paper describes them, in our notation (`audfer.lock_and_check.losses` says what is chosen where it leaves something open).
# Lock acts on the cosine map $M = \cos(w_{AU}, F)$ inside an AU's regions; AUs that are rare or found seldom weigh more, easy absences
# less (the minus sign is missing in its Eqs. 12 and 16):
#
# $$L = 0.5\, L_{loc} + 0.5\, L_{act} + 0.01\, L_{l2g} + 0.5\, L(y') + L(y''), \qquad
# L(p) = -w \big(y \log p + (1 - y)\, p \log(1 - p)\big)$$
#
# $$w = \delta\, w_{diff} + (1 - \delta)\, w_{dist}, \qquad w_{diff} \leftarrow \beta_1 w_{diff} + \frac{1 - \beta_1}{recall}, \qquad
# w_{dist} \leftarrow \beta_2 w_{dist} + \frac{1 - \beta_2}{share}$$
#
# On random logits, by hand and by the package, which divides $w$ by its mean:

# %% tags=["nbval-check-output"]
draw = torch.Generator().manual_seed(0)
logits, y = torch.randn(6, 3, generator=draw), (torch.rand(6, 3, generator=draw) < 0.4).float()
recall, share = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.4, 0.2, 0.1])
w, p = 0.5 / recall + 0.5 / share, logits.sigmoid()
L = -((w / w.mean()) * (y * p.log() + (1 - y) * p * (1 - p).log())).mean()
dynamic = losses.DynamicWeights(3, delta=0.5)
dynamic.update(recall, share)
print("weights, the rare and seldom found most:", *(f"{weight:.2f}" for weight in dynamic.weights))
print(f"formula {L:.4f}, package {losses.weighted_loss(logits, y, dynamic.weights):.4f}")

# %% [markdown]
# ## The method

# %% [markdown]
# ### Where does each AU act?
#
# Table I: two regions an AU, boxes around means of landmarks, half as wide as the eyes are apart (the width is ours, the
# paper does not say). AU12, AU14 and AU15 share theirs, and so do AU23 and AU25: regions cannot tell these apart.

# %%
study.results("a3_regions").save()

# %% [markdown]
# ### Which AU is in which group?
#
# An AU is checked against those of the other two groups.

# %% tags=["nbval-check-output"]
for group in regions.GROUPS:
    print(f"{group}:", *(au for au in ACTION_UNITS if regions.group_of(au) == group))
print("regions are ours:", *regions.OURS)

# %% [markdown]
# ### Table VIII: what does it cost?
#
# Counted on the paper-size network; everything in Check is shared by the AUs.

# %%
study.results("a3_cost").save()

# %% [markdown]
# ## How good is it?
#
# In the laptop profile every row starts from notebook 01's estimator and trains its last stage and the heads alone, with flips as the only
# augmentation; the paper starts from ImageNet and trains everything. What else differs stands in `audfer.lock_and_check.network` and
# `audfer.lock_and_check.training`.

# %% [markdown]
# ### What is trained?
#
# The rows of Tables IV to VII, side by side; a record that is already in the store is not trained again.

# %%
if recognition.has_annotated_set(study):
    print(len(recognition.records(study)), "records")

# %% [markdown]
# ### F1 of every AU on people it has not seen
#
# The estimator of notebook 01, LAC's baseline (backbone and linear layer), and LAC, trained as
# long. A recogniser that is trained longer, the one that `audfer au extract` takes, stands last where the profile has one.

# %%
for result in study.results("a3_f1"):
    display(result.save())

# %% [markdown]
# ### Tables II and III: and on real faces?
#
# As printed, for BP4D and DISFA, with ours below, which are of rendered faces. An average that
# does not follow from its row is marked.

# %%
for result in study.results("a3_printed_tables"):
    display(result.save())

# %% [markdown]
# ## Which part does what?

# %% [markdown]
# ### Table IV: which component helps?
#
# Each row against the row that it extends. TS: windows of consecutive frames; ST: Check. L_CE where L_DWA is not
# ticked.

# %%
for result in study.results("a3_components"):
    display(result.save())

# %% [markdown]
# ### Table V: how many frames at a time?
#
# Temporal sampling alone, against the profile's own t.

# %%
for result in study.results("a3_windows"):
    display(result.save())

# %% [markdown]
# ### Table VI: into how many segments is a subject cut?
#
# So many windows of each subject an epoch: more segments are more training.

# %%
for result in study.results("a3_segments"):
    display(result.save())

# %% [markdown]
# ### Table VII: which loss?
#
# Plain cross entropy, weighted by how rare an AU is (L_WA), and also by how seldom it is found (L_DWA).

# %%
for result in study.results("a3_losses"):
    display(result.save())

# %% [markdown]
# ### Fig. 4: how rare are AUs?

# %%
for result in study.results("a3_distribution"):
    display(result.save())

# %% [markdown]
# ### Fig. 5: which AUs are found when?
#
# From common to rare; the dynamic weights rise where recall stays low.

# %%
for result in study.results("a3_recall"):
    display(result.save())

# %% [markdown]
# ## Does it look where the AU acts?

# %% [markdown]
# ### Fig. 6: where do the baseline and LAC look?
#
# The same definition for both: what each place of the last feature map adds to the AU's logit; for
# the baseline that is the classic class activation map. In a network of this size a place sees a good part of the face.

# %%
for result in study.results("a3_faces"):
    display(result.save())

# %% [markdown]
# ### Fig. 7: and while a subtle AU comes?

# %%
for result in study.results("a3_sequence"):
    display(result.save())

# %% [markdown]
# ### As a number
#
# The share of a map inside the AU's regions, beside the regions' share of the picture. The second table measures the cosine map M
# that Lock's losses shape.

# %%
for result in study.results("a3_localisation"):
    display(result.save())

# %% [markdown]
# ## What comes of it?

# %% [markdown]
# ### How strong is an AU?
#
# LAC says whether an AU is there; its intensity is a monotone map of its logit, fitted on people that it was not trained on.

# %%
for result in study.results("a3_intensity"):
    display(result.save())

# %% [markdown]
# ### What do better AUs do for AU-DFER?
#
# The knowledge matrix, the AU labels and the class weights from three sources; the planted AUs are
# the most that any recogniser could bring.

# %%
for result in study.results("a3_better_aus"):
    display(result.save())

# %% [markdown]
# ## Your own faces
#
# Weights that were trained on rendered faces are **not** for real ones. With DISFA or BP4D, which their owners give out under their own licences:
#
# ```
# audfer data check DISFA --root /data/DISFA
# audfer au train-lac DISFA --root /data/DISFA --weights work/laptop/lac --out work/lac_disfa
# audfer au extract DFEW --root /data/DFEW --backend lac --weights work/lac_disfa
# ```
#
# `train-lac` goes on from this notebook's recogniser (or, without `--weights`, starts anew: `--size paper` is the paper's network), needs OpenFace's
# landmarks of the annotated frames for the regions, holds a third of the subjects out and says how good it is on them. At extraction no
# landmarks are needed.
