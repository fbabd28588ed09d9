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
# the AU head, whose loss is weighted by the knowledge matrix: L = (1 - lambda) L_e + lambda L_AU (Eq. 10).

# %% tags=["parameters"]
profile = "laptop"  # smoke, laptop, gpu, paper, or a path to a .toml file
work = ""  # folder for what is made on the way; "" = work/ of the repository
figures = ""  # folder for tables and figures; "" = figures/ of the repository
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# **Which study?** The profile's numbers, and where everything is made.

# %%
from audfer import figure_data, plots, published, tables
from audfer.outputs import save_figure, save_table
from audfer.study import open_study

study = open_study(profile, work, figures)
grid, embedded = study.profile.grid, study.profile.embedded
study

# %% [markdown]
# **Are the printed tables consistent?** UAR must be the mean of the seven class accuracies, WAR their mean weighted by the class counts:

# %% tags=["nbval-check-output"]
checks = published.check_tables()
for table, rows in checks.groupby("table"):
    print(f"Table {table}: UAR agrees in {rows.uar_agrees.sum()} of {rows.uar_agrees.count()} rows, WAR in {rows.war_agrees.sum()} of {rows.war_agrees.count()}")

# %% [markdown]
# **What is trained?** One row a cell; a record that is already in the store is not trained again.

# %%
records = study.records("table1")
study.grid_summary("table1", "table2", "table3", "fig5", "fig8")

# %% [markdown]
# **Table 1: does the AU head change WAR and UAR?** Every number of ours with its 95 % interval, the paper's beside it.

# %%
table1 = tables.table1(records, protocol=protocol, strategy=grid.strategy, au_ratio=grid.au_ratio, embedded=embedded)
save_table(table1, "table1_war_uar", study.figures)

# %% [markdown]
# **The same as a picture.**

# %%
save_figure(plots.accuracies(table1.tidy), "table1_plot", table1.tidy, study.figures,
            f"Table 1 as a picture. {tables.describe(records, protocol, embedded)}", records)

# %% [markdown]
# **Table 2: which expressions gain, and what does it cost?**

# %%
records = study.records("table2")
table2 = tables.table2(records, dataset=grid.strategy_dataset, protocol=protocol, strategy=grid.strategy, au_ratio=grid.au_ratio,
                       embedded=embedded, paper_flops=study.paper_flops())
save_table(table2, "table2_per_class", study.figures)

# %% [markdown]
# **Fig. 6: which expressions are taken for which?**

# %%
records = study.records("fig6")
data = figure_data.confusion_data(records, grid.strategy_dataset, protocol)
save_figure(plots.fig6(data), "fig6_confusion", data, study.figures,
            f"Fig. 6. Confusion matrices on {grid.strategy_dataset}. {tables.describe(records, protocol, embedded)}", records)
