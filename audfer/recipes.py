"""What a training recipe consists of: optimizer, schedule, augmentation, mixing and frame sampling, as numbers.

Each network's file lists its own recipes (``models``); ``training.recipes`` finds them by name and carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from .errors import InputError
from .sampling import SAMPLING

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "step")
CROPS = ("none", "mild", "swapped", "log")


@dataclass(frozen=True)
class Augmentation:
    """Numbers of a clip augmentation. The default does nothing."""

    name: str = "none"
    """for tables"""
    operations: int = 0
    """RandAugment: operations drawn with replacement for each clip; 0 = off"""
    magnitude: float = 7.0
    """RandAugment: mean strength of an operation, 0..10"""
    magnitude_deviation: float = 0.5
    """RandAugment: standard deviation of the strength"""
    operation_probability: float = 0.5
    """RandAugment: with which a drawn operation is done"""
    crop: str = "none"
    """"none"; "mild" (ours: aspect ratio uniform on a log scale, sides cut to the picture's); "swapped" (M3DFEL and
    Former-DFER: aspect ratio uniform, then width and height swapped with probability 0.5); "log" (MAE-DFER: uniform on
    a log scale). The last two try ten times for a crop inside the picture, and else take the whole"""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """share of the picture's area, uniform"""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """width over height"""
    flip: float = 0.0
    """probability of a horizontal flip"""
    colour_jitter: float = 0.0
    """brightness, contrast and saturation factors are uniform in 1 - x .. 1 + x; with the hue in random order"""
    hue_jitter: float = 0.0
    """the hue is turned by a uniform -x .. x of the whole circle"""
    erase: float = 0.0
    """probability of random erasing: one box of a clip, in all of its frames, is filled with normal noise, each pixel
    its own
    """
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """share of the picture's area, uniform"""
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """height over width, uniform on a log scale"""

    def __post_init__(self):
        if self.crop not in CROPS:
            raise InputError("augmentation", "crop", repr(self.crop), f"one of {', '.join(CROPS)}")


@dataclass(frozen=True)
class Recipe:
    """How one network is trained and evaluated."""

    source: str
    """whose numbers these are, and which of them are not"""

    # optimizer
    optimizer: str
    """"adamw", "adam" or "sgd" """
    learning_rate: float
    """the highest of the schedule, for ``batch_size`` clips a step (a release's scaling with the batch is worked in)"""
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's and Adam's; their epsilon is 1e-8 everywhere"""
    momentum: float = 0.9
    """SGD's"""
    decay_norms: bool = False
    """whether weight decay also pulls on one-dimensional parameters: biases and norms"""
    no_decay: tuple[str, ...] = ()
    """names (or their last part) of further parameters that it leaves alone"""
    layer_decay: float = 1.0
    """the rate of a transformer's block i of n is multiplied by this to the power n - i, that of the patch embedding by
    the power n + 1; everything else (heads, final norm, messenger tokens) gets the full rate. 1 = all layers alike"""
    clip_gradient: float = 0.0
    """largest gradient norm; 0 = unlimited"""

    # schedule, in optimizer steps
    batch_size: int = 32
    """clips a step"""
    epochs: int = 100
    """of the official run; a cell may train shorter, the schedule then shrinks with it"""
    drop_last: bool = True
    """whether an incomplete last batch is left out"""
    schedule: str = "cosine"
    """"cosine" to ``minimum_learning_rate``, or "step" (times 0.1 after each of ``milestones``)"""
    minimum_learning_rate: float = 0.0
    milestones: tuple[float, ...] = (0.4, 0.8)
    """shares of all steps; only for "step" """
    warmup: float = 0.0
    """share of all steps during which the rate rises linearly; 0.2 is 20 of 100 epochs"""
    warmup_from_zero: bool = False
    """whether the very first step has rate 0, so that it changes nothing (the releases'), or the first rise already"""
    cosine_ignores_warmup: bool = False
    """M3DFEL's quirk: the cosine counts from step 0, so the rate falls suddenly at the end of the warm-up"""
    schedule_lag: int = 0
    """M3DFEL's quirk: by how many steps the rate comes late (1: the first two steps have the same)"""

    # regularisation
    drop_path: float | None = None
    """stochastic depth of the last block; ``None`` = the network's own"""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """alpha of mixup's Beta distribution; 0 = off. Partner of a clip: the one at its place in the reversed batch. With
    both mixup and cutmix a batch gets one of them, each with probability 0.5"""
    cutmix: float = 0.0
    """alpha of cutmix's Beta distribution; 0 = off"""
    mix_aus: bool = False
    """whether the AU labels are mixed as well. Off as in AU-DFER's release, of which the paper's numbers are: a mixed
    clip keeps the first clip's AU labels, and the larger share's expression chooses the row of K. On is the consistent
    choice: labels and rows of K are mixed in the clips' proportions, and an AU unknown in either clip is left out"""

    # what the network sees
    augmentation: Augmentation = Augmentation()
    train_sampling: str = "jittered"
    """a name of ``sampling.SAMPLING``"""
    test_sampling: str = "uniform"
    """the same; a rule with several views averages their soft-max probabilities"""
    frame_stride: int = 1
    """frames from one to the next, for the rules that have one (MAE-DFER)"""
    selection: str = "last epoch"
    """which epoch its authors report; here every record holds the last epoch and the best on the test split, each named
    """

    def __post_init__(self):
        for name, found, allowed in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("train_sampling", self.train_sampling, tuple(SAMPLING)),
            ("test_sampling", self.test_sampling, tuple(SAMPLING)),
        ):
            if found not in allowed:
                raise InputError("recipe", name, repr(found), f"one of {', '.join(allowed)}")
        if self.batch_size < 1 or self.epochs < 1:
            raise InputError(
                "recipe", "batch_size, epochs", f"{self.batch_size}, {self.epochs}", "numbers of at least 1"
            )


def changed(recipe: Recipe, values: Mapping[str, object], where: str = "recipe") -> Recipe:
    """A recipe with some fields changed; lists are taken for tuples, whole numbers for numbers.

    Raises:
        InputError: an unknown field, a value of another kind, or one that is not possible.
    """
    known = {
        one.name: getattr(recipe, one.name) for one in fields(Recipe) if one.name not in ("source", "augmentation")
    }
    given = {}
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(where, f"recipe.{name}", "an unknown field", f"one of {', '.join(known)}{hint}")
        usual = 0.1 if known[name] is None else known[name]  # drop_path
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(usual, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(usual):
            raise InputError(where, f"recipe.{name}", repr(value), f"a {type(usual).__name__}, for example {usual!r}")
        given[name] = value
    return replace(recipe, **given)


#: crop and flip of the releases; the same with colours
CROP = Augmentation("crop", crop="swapped", flip=0.5)
JITTER = replace(CROP, name="crop and colours", colour_jitter=0.4, hue_jitter=0.4)

#: Tiny networks see some hundred clips about ten times and do not come to fit them: a high rate, hardly any
#: augmentation, no smoothing.
TINY = Recipe(
    "ours, for networks that train on a laptop",
    "adamw",
    3e-3,
    0.05,
    batch_size=16,
    epochs=12,
    warmup=0.1,
    clip_gradient=5.0,
    augmentation=Augmentation("mild crop", crop="mild", crop_area=(0.85, 1.0), flip=0.5),
)

#: the same from weights that ship with the package, in larger batches (half of a small batch's time does not depend on
#: its clips); and how those weights are trained on the source set: no longer than until networks tell the seven
#: expressions about as well as the target sets ask for, since from a better start an AU head has nothing left to add
TINY_START = replace(TINY, source="ours, from the weights that ship", learning_rate=6e-3, batch_size=32, epochs=5)
TINY_SOURCE = replace(TINY_START, source="ours, on the source set of the weights that ship", epochs=6)
