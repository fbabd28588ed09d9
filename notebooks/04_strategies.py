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
# # 04 · Three strategies for the positive class weight
#
# Most AUs are rare, so their positive examples are weighted up. By how much? *Global*: one weight an AU from all clips (Eq. 6);
# *distinct*: one for each expression (Eq. 7); *minor*: the distinct weights for rare expressions only (Eq. 8).

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository
model = ""  # one network alone: m3dfel, mae_dfer or former_dfer; "": those of the profile
dataset = ""  # one dataset alone: DFEW, FERV39k or MAFW; "": those of the profile
au_ratio = None  # lambda of Eq. 10, at least 0 and less than 1; None: the profile's
epochs = None  # of every training; None: the profile's
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import numpy as np

from audfer import facs, losses, published
from audfer.study.study import open_study

study = open_study(profile, work, figures, model=model, dataset=dataset, au_ratio=au_ratio, epochs=epochs)
study

# %% [markdown]
# ## The equations (section 3.3)
#
# With $t_{ij}$ of Eq. 4, over all $N$ training clips; over the clips of expression $e$ only; and that for minor expressions alone:
#
# $$w_j = \frac{\sum_i (1 - t_{ij})}{\sum_i t_{ij}} \tag{6}$$
#
# $$w_{ej} = \frac{\sum_{i : y_i = e} (1 - t_{ij})}{\sum_{i : y_i = e} t_{ij}} \tag{7}$$
#
# $$w'_{ej} = \begin{cases} 1 & N_e > N / 7 \quad \text{(major)} \\ w_{ej} & \text{otherwise} \end{cases} \tag{8}$$
#
# An AU that is never active would get an infinite weight; the package stops at 200. On 40 random clips:

# %% tags=["nbval-check-output"]
draw = np.random.default_rng(0)
t, y = (draw.uniform(size=(40, 18)) < 0.3).astype(float), np.arange(40) % 7
y[:8] = 3  # the one major expression

overall = (1 - t).sum(0) / t.sum(0)
active, inactive = (np.stack([part[y == e].sum(0) for e in range(7)]) for part in (t, 1 - t))
distinct = np.minimum(inactive / np.maximum(active, 1e-9), losses.DEFAULT_CAP)
minor = np.where((np.bincount(y) > len(y) / 7)[:, None], 1, distinct)
for equation, strategy, formula in ((6, "global", overall), (7, "distinct", distinct), (8, "minor", minor)):
    package = losses.positive_class_weight(t, y, strategy).numpy()
    print(f"Eq. {equation}, {strategy}: the package computes the formula:", np.allclose(package, formula))

# %% [markdown]
# ## Which expressions are major?
#
# Those with more than a seventh of all clips (section 3.3), from the published counts:

# %% tags=["nbval-check-output"]
for name in ("DFEW", "FERV39k", "MAFW"):
    counts = published.class_counts(name, "train")
    major = losses.major_expressions(list(counts.values()))
    print(f"{name}:", *(e for e, yes in zip(facs.EXPRESSIONS, major, strict=True) if yes))

# %% [markdown]
# ## Could this run show an effect?
#
# A positive control: the action units that were planted, with their matrix, must help. A negative control: those of other clips
# must not. Where either fails, no verdict below is worth anything, and it says so.

# %%
controls = study.results("controls", protocol=protocol)
controls.save()

# %% [markdown]
# As a picture:

# %%
controls.picture.save()

# %% [markdown]
# ## The strategies
#
# ### What are the weights?
#
# From the training clips' AU labels (Eq. 4); a weight of 1 leaves an AU as it is.

# %%
study.results("positive_class_weights").save()

# %% [markdown]
# ### Table 3: does the strategy matter?

# %%
table3 = study.results("table3", protocol=protocol)
table3.save()

# %% [markdown]
# As a picture, with the paper's numbers as another input.

# %%
table3.picture.save()

# %% [markdown]
# ### And on the other datasets?
#
# Where the profile trains them; the paper shows DFEW.

# %%
for table in study.results("table3_others", protocol=protocol):
    display(table.save())

# %% [markdown]
# ## Ablations that the paper leaves out
#
# Any auxiliary task can help a network. Is it the *knowledge*? Each row is AU-DFER with one thing changed: no matrix at all, the same
# weights in the wrong places, other matrices, and the two places where the released code reads the equations in its own way.

# %% [markdown]
# ### Which variant is best?

# %%
ablations = study.results("ablations", protocol=protocol)
ablations.save()

# %% [markdown]
# As a picture: what each variant gains over plain binary cross entropy, which knows nothing about expressions.

# %%
ablations.picture.save()

# %% [markdown]
# ### So, is it the knowledge?
#
# In words, from the table's numbers.

# %%
study.results("ablation_conclusions", protocol=protocol).save()
