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
# # 03 · Training with and without action units
#
# Does a second head that learns AUs help the expressions? Three networks on three datasets, each alone (lambda = 0) and with
# the AU head, whose loss is weighted by the knowledge matrix.

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository
model = ""  # one network alone: m3dfel, mae_dfer or former_dfer; "": those of the profile
dataset = ""  # one dataset alone: DFEW, FERV39k or MAFW; "": those of the profile
au_ratio = None  # lambda of Eq. 10, at least 0 and less than 1; None: the profile's
epochs = None  # of every training; None: the profile's
clip = ""  # clip_id of the training clip that notebooks 01 and 03 follow; "": the first of the dataset
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import torch

from audfer import losses
from audfer.published import audit, printed
from audfer.study.study import open_study

study = open_study(profile, work, figures, model=model, dataset=dataset, au_ratio=au_ratio, epochs=epochs)
study

# %% [markdown]
# ## The equations (sections 3.2 and 3.3)
#
# An AU is active in a clip where it is present in at least half of the $n$ frames:
#
# $$t_j = \begin{cases} 1 & \sum_{i=1}^{n} c_{ij} \ge n / 2 \\ 0 & \text{otherwise} \end{cases} \tag{4}$$
#
# The expression head with probabilities $p$ learns by cross entropy over $N$ clips. (The paper prints $\log 5p$: a constant, no gradient.)
#
# $$L_e = -\frac{1}{N} \sum_{i=1}^{N} \log p_{i, y_i} \tag{5}$$
#
# The AU head with probabilities $q$ learns the labels of Eq. 4, weighted by the knowledge $k = 5 K_{y_i}$ of the clip's expression and the positive
# class weight $w$ of notebook 04. Here the mean over the 18 AUs, as the release has it; the paper prints their sum.
#
# $$L_{AU} = -\frac{1}{18 N} \sum_{i=1}^{N} \sum_{j=1}^{18} k_{ij} \big(w_j t_{ij} \log q_{ij} + (1 - t_{ij}) \log(1 - q_{ij})\big) \tag{9}$$
#
# $$L = (1 - \lambda) L_e + \lambda L_{AU} \tag{10}$$
#
# Three clips of eight frames with random logits, from AUs to the total loss: the formulas beside the package.

# %%
draw = torch.Generator().manual_seed(0)
y, present = torch.tensor([0, 3, 6]), (torch.rand(3, 8, 18, generator=draw) < 0.5).float()
expression_logits, au_logits = torch.randn(3, 7, generator=draw), torch.randn(3, 18, generator=draw)
K, w, au_weight = torch.rand(7, 18, generator=draw) * 0.8 + 0.1, 5 * torch.rand(18, generator=draw), 0.25

p, q = expression_logits.softmax(1), au_logits.sigmoid()
t = (present.sum(1) >= 8 / 2).float()
L_e = -p[range(3), y].log().mean()
L_au = -(5 * K[y] * (w * t * q.log() + (1 - t) * (1 - q).log())).mean()
L = (1 - au_weight) * L_e + au_weight * L_au

# %% tags=["nbval-check-output"]
labels = torch.from_numpy(losses.clip_au_labels(present))
expression_loss, au_loss = losses.expression_loss(expression_logits, y), losses.AULoss(K, w)(au_logits, labels, y)
total = losses.combined_loss(expression_loss, au_loss, au_weight)
print("Eq. 4: the same labels:", torch.equal(labels, t))
for equation, formula, package in ((5, L_e, expression_loss), (9, L_au, au_loss), (10, L, total)):
    print(f"Eq. {equation}: formula {formula:.4f}, package {package:.4f}")

# %% [markdown]
# ## Are the printed tables consistent?
#
# UAR must be the mean of the seven class accuracies, WAR their mean weighted by the class counts:

# %% tags=["nbval-check-output"]
for name in ("AU-DFER Table 2", "AU-DFER Table 3"):
    sums = audit.recomputed(printed.sheet(name))
    print(
        f"{name}: UAR agrees in {(sums.mean_beyond == 0).sum()} of {len(sums)} rows, WAR in {(sums.weighted_beyond == 0).sum()}"
    )

# %% [markdown]
# ## What is trained?
#
# The cells of all tables and figures of notebooks 03 to 05, side by side; a record that is already in the store is not
# trained again.

# %%
outputs = ("table1", "table2", "table3", "controls", "ablations", "fig5", "fig8", "pretraining")
study.records(*outputs)
cells = study.grid_summary(*outputs)
print(
    f"{cells['new to this table'].sum()} different trainings in all; {cells['in the store'].sum()} of the {cells['cells'].sum()} below are made."
)
cells

# %% [markdown]
# ### The clip of notebook 01, from its frames to the loss
#
# Eqs. 5, 9 and 10 on one clip: what both heads say of it, and what each AU adds.

# %%
study.results("one_clip_loss", clip=clip).save()

# %% [markdown]
# ## Table 1: does the AU head change WAR and UAR?
#
# Every number of ours with its 95 % interval, the paper's beside it.

# %%
table1 = study.results("table1", protocol=protocol)
table1.save()

# %% [markdown]
# As a picture:

# %%
table1.picture.save()

# %% [markdown]
# ## Against what?
#
# Always the commonest expression costs nothing; a regression on the extractor's AUs needs no network that sees
# the clip; the same on planted AUs is what perfect action units would give.

# %%
references = study.results("table1_references", protocol=protocol)
references.save()

# %% [markdown]
# As a picture:

# %%
references.picture.save()

# %% [markdown]
# ## How far away are the networks?

# %%
study.results("table1_gap", protocol=protocol).save()

# %% [markdown]
# ## And over all networks and datasets?
#
# Interquartile means, and how often a run with the AU head beats one without.

# %%
study.results("table1_aggregate", protocol=protocol).save()

# %% [markdown]
# ## Table 2: which expressions gain, and what does it cost?

# %%
study.results("table2", protocol=protocol).save()

# %% [markdown]
# ## So, did AU knowledge help?
#
# In words, from the two tables' numbers: where, for which expressions, and how sure that is.

# %%
study.results("conclusions", protocol=protocol).save()

# %% [markdown]
# ## One fold instead of all?
#
# The paper's own rows mix folds (see the notes). Only where the profile has several folds.

# %%
for table in study.results("one_fold", protocol=protocol):
    display(table.save())

# %% [markdown]
# ## "No cost increase"?
#
# What the AU head and the AU loss add to every paper-size network.

# %%
study.results("cost").save()

# %% [markdown]
# ## Fig. 6: which expressions are taken for which?

# %%
study.results("fig6", protocol=protocol).save()

# %% [markdown]
# ## What networks start from
#
# M3DFEL starts from Kinetics, MAE-DFER from masked pre-training on unlabelled faces, Former-DFER from random weights. Tiny networks
# start from weights that ship with the package: the seven expressions of other rendered people's clips, no action unit
# (`audfer/pretrained`, each with a card). How much of Table 1 is that start?

# %% [markdown]
# ### What ships, and what is it worth on clips of people it has not seen?

# %%
study.results("pretrained_cards").save()

# %% [markdown]
# ### What else could networks start from?
#
# Measured once on other data, for about the same processor time each; what planted action units add says what a start leaves for
# AU supervision to do.

# %%
study.results("pretexts").save()

# %% [markdown]
# ### Does fine-tuning gain from the start, and does AU-DFER gain as much from scratch?
#
# The same cells from random weights.

# %%
study.results("pretraining", protocol=protocol).save()

# %% [markdown]
# ## Appendix: masked pre-training
#
# MAE-DFER comes pre-trained on unlabelled clips: most of each clip is hidden, and a decoder predicts what the hidden places show
# and how they move. Here the tiny network does so on the training clips of the three rendered datasets (`audfer train --objective mae`
# takes any packed clips).

# %% [markdown]
# ### What does it make of clips it has not seen?
#
# Four moments of three test clips each. Blue gets darker, red gets brighter.

# %%
study.results("pretraining_reconstruction").save()
