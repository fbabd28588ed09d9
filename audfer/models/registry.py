"""What the rest of audfer knows of a network: its class, title, colour, sizes, variants, recipes and official weights.

A network is one file that ends with ``NETWORKS.add(name, Network(...))``; nothing else names it (``CONTRIBUTING.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import AudferError
from ..plugins import Registry
from ..recipes import Recipe
from .output import ClipModel


@dataclass(frozen=True)
class Family:
    """A kind of weights that can be told by its keys.

    Attributes:
        title: what to call it.
        marks: keys that only this kind has.
        rename: official key of the file -> key of the network.
        absent: beginnings of the network's keys that such a file does not have.
        unneeded: beginnings of the file's keys, renamed, that the network does not have.
    """

    title: str
    marks: tuple[str, ...]
    rename: Callable[[str], str] = str
    absent: tuple[str, ...] = ()
    unneeded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Network:
    """A network as it is chosen by name.

    Attributes:
        build: its class; keyword-only constructor, whose defaults are the official network, or the printed one.
        title: as the papers print it.
        colour: of its lines and bars in every figure, "#rrggbb".
        sizes: name -> keywords of the class; "paper" and "tiny" are what profiles ask for. Tiny: the same parts, small
            enough to train on a laptop's processor, from scratch, on some hundred clips.
        recipes: name -> how it is trained; the default of a size has the size's name.
        variants: name -> keywords in which an ablation of it differs.
        weights: kinds of official weights that start it.
        unreleased: what to say where its authors released no weights.
        cost: rough time of a tiny training step beside the other networks'.
        version: raised by hand when the same weights and clips give other numbers (``versions``).
    """

    build: type[ClipModel]
    title: str
    colour: str
    sizes: dict[str, dict]
    recipes: dict[str, Recipe]
    variants: dict[str, dict] = field(default_factory=dict)
    weights: tuple[Family, ...] = ()
    unreleased: str = ""
    cost: float = 1.0
    version: int = 1


#: name -> network, in the order of the paper's tables
NETWORKS: Registry = Registry("models.m3dfel", "models.mae_dfer", "models.former_dfer")


def build_model(
    name: str,
    num_classes: int = 7,
    num_aus: int | None = 18,
    size: str = "paper",
    num_frames: int | None = None,
    image_size: int | None = None,
    **overrides,
) -> ClipModel:
    """A network with fresh weights, drawn from torch's global generator (``torch.manual_seed`` makes it repeatable).

    Args:
        name: of ``NETWORKS``: "m3dfel", "mae_dfer", "former_dfer", "keypoint_gcn", or that of a plug-in.
        num_classes: expressions.
        num_aus: AUs of the extra head; ``None`` builds the network without it (the paper's baseline).
        size: "paper" (the official or printed network) or "tiny" (the same parts, made to train on a laptop's
            processor).
        num_frames: frames of a clip; ``None``: 16 for "paper", 8 for "tiny".
        image_size: side of a frame in pixels; ``None``: 112 (MAE-DFER 160) for "paper", 48 for "tiny".
        **overrides: any keyword of the model's class.

    Raises:
        AudferError: an unknown name, size or keyword, or sizes that the model cannot take.
    """
    if name not in NETWORKS:
        raise AudferError(f"unknown model {name!r}, expected one of {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    if size not in network.sizes:
        raise AudferError(f"unknown model size {size!r}, expected one of {', '.join(network.sizes)}")
    settings = {"num_classes": num_classes, "num_aus": num_aus, **network.sizes[size]}
    settings.update(
        {key: value for key, value in (("num_frames", num_frames), ("image_size", image_size)) if value is not None}
    )
    known = network.build.__init__.__kwdefaults__
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise AudferError(f"{name}: unknown setting {unknown[0]!r}, expected one of {', '.join(known)}")
    return network.build(**{**settings, **overrides})


def default_clip_shape(name: str, size: str = "paper") -> tuple[int, int, int, int]:
    """(T, 3, H, W) of the clips that ``build_model(name, size=size)`` takes."""
    settings = {**NETWORKS[name].build.__init__.__kwdefaults__, **NETWORKS[name].sizes[size]}
    return settings["num_frames"], 3, settings["image_size"], settings["image_size"]
