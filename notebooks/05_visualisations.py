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
# # 05 · Looking inside
#
# How much AU is enough, what happens during training, and what do the learned features look like? Sections 5.2
# and 5.3 of the paper; but for Fig. 5's lambdas nothing new is trained: the networks are those of notebooks 03 and 04 (Eqs. 4 to 10).

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository
model = ""  # one network alone: m3dfel, mae_dfer or former_dfer; "": those of the profile
dataset = ""  # one dataset alone: DFEW, FERV39k or MAFW; "": those of the profile
au_ratio = None  # lambda of Eq. 10, at least 0 and less than 1; None: the profile's
au_ratios = None  # lambdas of Fig. 5, for example [0, 0.1, 0.9]; None: those of the profile
epochs = None  # of every training; None: the profile's
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import torch

from audfer import losses
from audfer.study.study import open_study

changes = dict(model=model, dataset=dataset, au_ratio=au_ratio, au_ratios=au_ratios, epochs=epochs)
study = open_study(profile, work, figures, **changes)
study

# %% [markdown]
# ## What does lambda do?
#
# $$L = (1 - \lambda) L_e + \lambda L_{AU}$$
#
# is Eq. 10: action units count $\lambda : (1 - \lambda)$ against the expressions. On losses of $L_e = 1$ and $L_{AU} = 3$:

# %% tags=["nbval-check-output"]
for au_ratio in (0.0, 0.25, 0.5):
    total = losses.combined_loss(torch.tensor(1.0), torch.tensor(3.0), au_ratio)
    print(f"lambda {au_ratio:.2f}: total {float(total):.2f}")

# %% [markdown]
# ## Fig. 5: how much AU is enough?
#
# WAR and UAR against lambda on every dataset.

# %%
study.results("fig5", protocol=protocol).save()

# %% [markdown]
# ## How large is each term?
#
# The two terms of Eq. 10 in the last epoch, as lambda weighs them. The paper shows no magnitudes.

# %%
study.results("loss_terms").save()

# %% [markdown]
# ## Fig. 7: what happens during training?
#
# With the AU head the total loss is another quantity, so only its shape can be compared.

# %%
study.results("fig7").save()

# %% [markdown]
# ## Fig. 8: do the features separate the expressions?
#
# t-SNE of the test clips' features for the network without an AU head,
# with an AU head but no knowledge weights, and with AU-DFER.

# %%
study.results("fig8").save()

# %% [markdown]
# ## What the records also tell
#
# Neither is in the paper: whether the AU head learns its task, and whether a network is right as often as it says.

# %% [markdown]
# ### Does the AU head find AUs?
#
# F1 against the labels of Eq. 4 on test clips; always saying "present" is the bar to pass.

# %%
study.results("au_head").save()

# %% [markdown]
# ### Is a network right as often as it says?
#
# On the dashed line confidence $p_b$ is accuracy $a_b$; ECE is the mean distance from it over bins of $n_b$ of the $N$ clips:
# $\mathrm{ECE} = \sum_b n_b\, |a_b - p_b| / N$.

# %%
study.results("calibration", protocol=protocol).save()
