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
# # A2 · A network that looks at key points
#
# The method of Huang, Zhu, Li and Yang (2024), here *KP-GCN*: a ResNet's map of every frame is read at 18 points of the face, a graph lets
# neighbouring points speak to each other, their means over three regions make the frame's vector, and self-attention reads the frames. Its
# own paper's tables on the embedded benchmark, and what AU-DFER adds to it. Tables and figures are numbered as in that paper.

# %% tags=["parameters"]
profile = ""  # smoke, laptop, appendices, ravdess, pretrained, gpu, paper, or a path to a .toml file; "": AUDFER_PROFILE, else laptop
work = ""  # folder for what is made on the way; "": work/ of the repository
figures = ""  # folder for tables and figures; "": figures/ of the repository
dataset = ""  # one dataset alone: DFEW, FERV39k or MAFW; "": those of the profile
au_ratio = None  # lambda of Eq. 10, at least 0 and less than 1; None: the profile's
epochs = None  # of every training; None: the profile's
protocol = "last"  # last: after the last epoch; best-on-test: the epoch chosen on the test clips, as the releases do

# %% [markdown]
# ## Which study?
#
# The profile's numbers, and where everything is made.

# %%
import torch

from audfer.keypoint_gcn.network import EDGES, POINT_NAMES, REGIONS, KeyPointGraph, adjacency, heat_maps
from audfer.keypoint_gcn.results import ABLATIONS
from audfer.models import build_model
from audfer.study.study import open_study

study = open_study(profile, work, figures, dataset=dataset, au_ratio=au_ratio, epochs=epochs)
study

# %% [markdown]
# ## The equations
#
# As that paper describes them, in our notation (`audfer.keypoint_gcn.network` says what it leaves open). A point's vector is the map $F$
# weighed by a Gaussian $A_j$ around it, the face's is $v^g = \mathrm{FC}(\mathrm{GAP}(F))$; the graph's adjacency is $A$:
#
# $$v_j^l = \mathrm{GAP}(F * A_j), \qquad W_a = \mathrm{ReLU}(V^l W V^{gT}), \qquad
# V = \mathrm{ReLU}\big(\mathrm{FC}[\,W_a * (A V^l) + V^l;\; V^g\,]\big), \qquad L = 0.2\, L_S + 0.8\, L_T$$
#
# On one random frame, by hand and by the package:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
graph, V_l, V_g = KeyPointGraph(8, 4), torch.randn(1, 18, 8), torch.randn(1, 1, 8)
W_a = torch.relu(V_l @ graph.similarity @ V_g.transpose(1, 2))
V = torch.relu(graph.fc(torch.cat((W_a * (adjacency() @ V_l) + V_l, V_g), dim=1)))
print("the package computes the formula:", torch.allclose(V, graph(V_l, V_g), atol=1e-5))
print(f"mean of each map A_j: {heat_maps(torch.rand(18, 2), 14, 14, 1.0).mean():.2f}")

# %% [markdown]
# ## The method

# %% [markdown]
# ### Which points?
#
# 16 of the 68 landmarks and two cheeks, each the centroid of three. Points of one part of the face are neighbours; the paper
# does not print its adjacency, so this one is ours. Where a point is hidden or outside the frame it is masked: it sends nothing to its
# neighbours and does not count in its region's mean.

# %%
study.results("keypoint_method").save()

# %% [markdown]
# ### Which points are averaged into a frame's vector?
#
# With the whole face's vector that is 4 x 128 = 512 numbers; the nose bridge is dropped.

# %% tags=["nbval-check-output"]
for name, members in REGIONS.items():
    print(f"{name}: {', '.join(POINT_NAMES[k] for k in members)}")
print(f"{len(POINT_NAMES)} points, {len(EDGES)} edges")

# %% [markdown]
# ### How does the network look at one point?
#
# The Gaussians $A_j$ of the equations above. The last
# two stages of the ResNet keep their resolution, so that the map is fine enough for that.

# %%
study.results("keypoint_heat_maps").save()

# %% [markdown]
# ### And over time?
#
# A class token and learned positions, three pre-norm blocks with eight heads; the token is classified. In training the mean of
# the frame vectors is classified as well, with the loss $L_S$ of the equations above.

# %% [markdown]
# ## The same network, with and without AU-DFER

# %% [markdown]
# ### What is trained?
#
# One row a table; a record that is already in the store is not trained again.

# %%
study.records("keypoint_classes", *ABLATIONS)
study.grid_summary("keypoint_classes", *ABLATIONS)

# %% [markdown]
# ### Tables 3, 5 and 7: which expressions does it recognise, and does AU-DFER help it?
#
# On the rendered counterparts of DFEW, FERV39k and MAFW (seven
# of MAFW's eleven classes are rendered). The paper's own row stands below ours, as another input.

# %%
for table in study.results("keypoint_classes", protocol=protocol):
    display(table.save())

# %% [markdown]
# ### Table 4: and AFEW?
#
# There is no rendered AFEW, so this table is printed only, and so are the AFEW columns below.

# %%
for table in study.results("keypoint_afew"):
    display(table.save())

# %% [markdown]
# ### Table 8: what does it cost?
#
# Parameters are counted; speeds are those of the last benchmark (`benchmarks/model_speed.py`).

# %%
study.results("keypoint_cost").save()

# %% [markdown]
# ### Which expressions are taken for which?

# %%
for figure in study.results("keypoint_confusion", protocol=protocol):
    display(figure.save())

# %% [markdown]
# ### Do the features separate the expressions?
#
# t-SNE of the test clips.

# %%
study.results("keypoint_features").save()

# %% [markdown]
# ## Which part does what?
#
# The paper's ablations, each on the rendered DFEW, without an AU head: the difference to the full network with its interval, beside the printed
# accuracies.

# %% [markdown]
# ### Table 9: the graph, and what reads the frames?
#
# A has neither, E has both.

# %%
study.results("keypoint_modules", protocol=protocol).save()

# %% [markdown]
# ### Table 10: how are the points of a frame put together?

# %%
study.results("keypoint_fusion", protocol=protocol).save()

# %% [markdown]
# ### What is a number of heads that does not divide 512?
#
# Heads usually share the 512 dimensions; 6, 10 and 12 cannot do so evenly, and the paper does
# not say what it did. Here every head is 64 wide and a linear layer brings them back to 512, so more heads are more weights:

# %% tags=["nbval-check-output"]
for heads in (6, 8, 10, 12):
    network = build_model("keypoint_gcn", num_aus=None, temporal_heads=heads)
    print(
        f"{heads} heads: {64 * heads} inside, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} million parameters"
    )

# %% [markdown]
# ### Table 11: does the number of heads matter?

# %%
study.results("keypoint_heads", protocol=protocol).save()

# %% [markdown]
# ### Table 12: does the number of blocks?

# %%
study.results("keypoint_depth", protocol=protocol).save()

# %% [markdown]
# ### Fig. 8: how much auxiliary loss?
#
# The weight of the loss on the mean of the frame vectors; the paper chooses 0.2.

# %%
study.results("keypoint_auxiliary", protocol=protocol).save()

# %% [markdown]
# ### So, which part matters?
#
# In words, from the tables' numbers.

# %%
study.results("keypoint_conclusions", protocol=protocol).save()
