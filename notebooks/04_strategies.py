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
profile = "laptop"  # smoke, laptop, gpu, paper, or a path to a .toml file
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# **Which study?** The profile's numbers, and where everything is made.

# %%
from audfer import facs, losses, plots, published, tables
from audfer.outputs import save_figure, save_table
from audfer.study import open_study

study = open_study(profile, work, figures)
grid, embedded = study.profile.grid, study.profile.embedded
study

# %% [markdown]
# **Which expressions are major?** Those with more than a seventh of all clips (section 3.3), from the published counts:

# %% tags=["nbval-check-output"]
for name in ("DFEW", "FERV39k", "MAFW"):
    counts = published.class_counts(name, "train")
    major = losses.major_expressions(list(counts.values()))
    print(f"{name}:", *(e for e, yes in zip(facs.EXPRESSIONS, major) if yes))

# %% [markdown]
# **What are the weights?** From the training clips' AU labels (Eq. 4); a weight of 1 leaves an AU as it is.

# %%
data = study.positive_class_weights()
save_figure(plots.positive_class_weights(data), "positive_class_weights", data, study.figures,
            f"Positive class weights of the three strategies on {grid.strategy_dataset}. {study.caption}")

# %% [markdown]
# **Table 3: does the strategy matter?**

# %%
records = study.records("table3")
table3 = tables.table3(records, dataset=grid.strategy_dataset, protocol=protocol, au_ratio=grid.au_ratio, embedded=embedded)
save_table(table3, "table3_strategies", study.figures)

# %% [markdown]
# **The same as a picture,** with the paper's numbers as another input.

# %%
save_figure(plots.strategies(table3.tidy, embedded=embedded), "table3_plot", table3.tidy, study.figures,
            f"Table 3 as a picture. {tables.describe(records, protocol, embedded)}", records)
