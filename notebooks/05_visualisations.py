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
# How much AU is enough, what happens during training, and what do the learned features look like?

# %% tags=["parameters"]
profile = "laptop"  # smoke, laptop, gpu, paper, or a path to a .toml file
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# **Which study?** The profile's numbers, and where everything is made.

# %%
import torch

from audfer import figure_data, losses, plots, tables
from audfer.outputs import save_figure
from audfer.study import open_study

study = open_study(profile, work, figures)
grid, embedded = study.profile.grid, study.profile.embedded
study

# %% [markdown]
# **What does lambda do?** Eq. 10 on two losses of 1 and 3:

# %% tags=["nbval-check-output"]
for au_ratio in (0.0, 0.25, 0.5):
    total = losses.combined_loss(torch.tensor(1.0), torch.tensor(3.0), au_ratio)
    print(f"lambda {au_ratio:.2f}: total {float(total):.2f}")

# %% [markdown]
# **Fig. 5: how much AU is enough?** WAR and UAR against lambda on the three datasets.

# %%
records = study.records("fig5")
data = figure_data.ratio_data(records, grid.ratio_model, protocol)
save_figure(plots.fig5(data), "fig5_au_ratio", data, study.figures,
            f"Fig. 5. WAR and UAR against lambda. {tables.describe(records, protocol, embedded)}", records)

# %% [markdown]
# **Fig. 7: what happens during training?** With the AU head the total loss is another quantity, so only its shape can be compared.

# %%
records = study.records("fig7")
data = figure_data.process_data(records, grid.ratio_model, grid.strategy_dataset)
save_figure(plots.fig7(data), "fig7_training", data, study.figures,
            f"Fig. 7. Training without and with AU on {grid.strategy_dataset}. {study.caption}", records)

# %% [markdown]
# **Fig. 8: do the features separate the expressions?** t-SNE of the test clips' features for the backbone alone, with an AU head but
# no knowledge weights, and with AU-DFER.

# %%
records = study.records("fig8")
data = figure_data.embedding_data(records, grid.ratio_model, grid.strategy_dataset)
save_figure(plots.fig8(data), "fig8_tsne", data, study.figures,
            f"Fig. 8. t-SNE of the test features on {grid.strategy_dataset}; the numbers are taken in feature space. {study.caption}", records)
