"""The AU plug-in for any network (section 3.2: one more linear layer on the classifier's input), and what it costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..errors import AudferError
from .output import Output, by_definition


def _remember(layer: nn.Module, args: tuple, kwargs: dict, logits: Tensor) -> None:
    # On the layer itself and as a plain function: a copy, an unpickled network and a DataParallel replica then each see
    # their own features, and torch.compile traces it. None: nobody waits, for example when a checkpoint recomputes.
    if getattr(layer, "_au_calls", None) is not None:
        layer._au_calls = (*layer._au_calls, (args[0] if args else kwargs["input"], logits))


class WithAUHead(nn.Module):
    """A network with an AU head beside one of its linear layers. Made by :func:`attach_au_head`.

    ``forward`` takes what the wrapped network takes and gives :class:`Output`: the classifier's own output as
    expression logits (whatever the network does after it: soft-max, loss, a dictionary), AU logits, and the features
    that both saw; auxiliary logits where the network itself gives an ``Output`` with them. One forward pass at a time,
    as for any module that keeps something between two of its lines.

    Attributes:
        model: the network, unchanged; ``wrapped.model.state_dict()`` has the keys that it always had.
        au_head: the added linear layer.
        classifier: the classifier's name in ``model``.
        pool: ``None`` or "mean".
        uses_landmarks, auxiliary_weight: the network's, where it is a ``ClipModel``; else ``False`` and 0.
    """

    def __init__(self, model: nn.Module, classifier: str, num_aus: int, pool: str | None = None):
        super().__init__()
        if pool not in (None, "mean"):
            raise AudferError(f"attach_au_head: pool is {pool!r}, expected None or 'mean'")
        self.classifier, layer = _linear_layer(model, classifier)
        self.model, self.pool = model, pool
        self.uses_landmarks = getattr(model, "uses_landmarks", False)
        self.auxiliary_weight = getattr(model, "auxiliary_weight", 0.0)
        self.au_head = nn.Linear(layer.in_features, num_aus, device=layer.weight.device, dtype=layer.weight.dtype)
        # attaching a second time (a notebook cell that is run again) must not make the layer report twice
        if not hasattr(layer, "_au_hook"):
            layer._au_calls, layer._au_hook = None, layer.register_forward_hook(_remember, with_kwargs=True)

    def forward(self, *args, **kwargs) -> Output:
        layer = self.model.get_submodule(self.classifier)
        layer._au_calls = ()
        try:
            result = self.model(*args, **kwargs)
            calls = layer._au_calls
        finally:
            layer._au_calls = None  # keep no graph alive between steps
        if len(calls) != 1:
            raise AudferError(
                f"the network's forward pass called its layer {self.classifier!r} {len(calls)} times, expected once: "
                + (
                    "name the layer that makes the expression logits; if the network was compiled or scripted before, "
                    "attach the AU head first and compile then"
                    if not calls
                    else "the AU head would see the last of several views only; make the views one batch, or average "
                    "them before it"
                )
            )
        features, logits = calls[0]
        if torch.is_grad_enabled() and layer.weight.requires_grad and not logits.requires_grad:
            raise AudferError(
                f"the layer {self.classifier!r} ran without gradients (in a re-entrant checkpoint or under no_grad), "
                "so nothing would be learned; call checkpoint with use_reentrant=False"
            )
        rows = len(features)
        clips = _clips(logits, result, args)
        if self.pool == "mean" and (features.ndim > 2 or rows != clips and rows % clips == 0):
            features, logits = (x.reshape(clips, -1, x.shape[-1]).mean(dim=1) for x in (features, logits))
        if features.ndim != 2:
            raise AudferError(
                f"the layer {self.classifier!r} receives features of the shape {tuple(features.shape)}, expected "
                "(batch, features): one vector per clip; pool='mean' averages the tokens of (batch, tokens, features)"
            )
        if len(features) != clips:
            raise AudferError(
                f"the layer {self.classifier!r} sees {rows} vectors for {clips} clips, expected one vector per clip; "
                "pool='mean' averages those of one clip, frame by frame in (clips, frames) order, as the network does"
            )
        auxiliary_logits = result.auxiliary_logits if isinstance(result, Output) else None
        return Output(logits, self.au_head(features), features, auxiliary_logits)

    def remove(self) -> nn.Module:
        """Take the AU head off again: the wrapped network without our hook."""
        layer = self.model.get_submodule(self.classifier)
        if hasattr(layer, "_au_hook"):
            layer._au_hook.remove()
            del layer._au_hook, layer._au_calls
        return self.model

    def extra_repr(self) -> str:
        return f"classifier={self.classifier!r}, pool={self.pool!r}"


def _clips(logits: Tensor, result, args: tuple) -> int:
    """How many clips a network saw: by the logits that it returns, or by its clips, where every frame was classified;
    else as many as its classifier saw vectors.
    """
    rows = len(logits)
    returned = list(result.values()) if isinstance(result, dict) else result if isinstance(result, tuple) else [result]
    own = [len(x) for x in returned if isinstance(x, Tensor) and x.ndim == 2 and x.shape[-1] == logits.shape[-1]]
    clips = rows if rows in own else max(1, min(own, default=rows))
    for x in args:
        # (B, T, 3, H, W) or (B, 3, T, H, W)
        if isinstance(x, Tensor) and x.ndim == 5 and rows in (len(x) * x.shape[1], len(x) * x.shape[2]):
            clips = min(clips, len(x))
    return clips


def _linear_layer(model: nn.Module, name: str) -> tuple[str, nn.Linear]:
    """The linear layer called ``name``, or the only one in the container of that name, and its full name."""
    modules = dict(model.named_modules(remove_duplicate=False))
    linears = {key: module for key, module in modules.items() if isinstance(module, nn.Linear)}
    inside = [key for key in linears if key == name or (name in modules and key.startswith(f"{name}."))]
    if len(inside) != 1:
        listed = inside or list(linears)
        shown = ", ".join(listed if len(listed) <= 12 else ["...", *listed[-12:]]) or "(it has none)"
        kind = f", but a {type(modules[name]).__name__}" if name in modules else ""
        raise AudferError(f"{type(model).__name__} has no linear layer named {name!r}{kind}, expected one of: {shown}")
    layer = linears[inside[0]]
    if isinstance(layer, nn.LazyLinear):
        raise AudferError(
            f"the layer {inside[0]!r} does not know its sizes yet; run one batch of clips through the network first"
        )
    return inside[0], layer


def attach_au_head(model: nn.Module, classifier: str = "fc", num_aus: int = 18, pool: str | None = None) -> WithAUHead:
    """Add an AU head to anybody's network, without touching its code.

    Copies, pickles, ``torch.compile``, autocast, DDP and DataParallel work on the result as on any module. Compile the
    result, not the network before. Under DDP, layers that the network applies only after its classifier receive no
    gradient, because what it returns is not used; such a network needs ``find_unused_parameters=True``.

    Args:
        model: a network that turns clips into expression logits through a final linear layer. It may return anything.
        classifier: name of that layer, as in ``model.named_modules()`` ("fc", "head", "classifier.1", ...), or of a
            container with exactly one linear layer in it. The AU head is put on the same device, in the same precision.
            A 1x1 convolution is no linear layer; wrap or rewrite such a classifier first.
        num_aus: AUs, in ``facs.ACTION_UNITS`` order for 18.
        pool: "mean" for a classifier that is applied to every token, (batch, tokens, features), or to every frame,
            (clips * frames, features), and averaged afterwards: features and expression logits are averaged over
            each clip's. ``None`` refuses such features.

    Returns:
        A module whose forward gives :class:`Output`; train it with ``losses.combined_loss``. Its forward raises
        ``AudferError`` when the layer was not called exactly once, or ran without gradients while training.

    Raises:
        AudferError: ``model`` has no linear layer of that name; the sentence lists those it has.

    Example:
        >>> wrapped = attach_au_head(my_network, classifier="fc")                      # doctest: +SKIP
        >>> output = wrapped(clips)                                                    # doctest: +SKIP
        >>> loss = combined_loss(cross_entropy(output.expression_logits, expressions),
        ...                      au_loss(output.au_logits, au_labels, expressions), au_ratio=0.25)  # doctest: +SKIP
    """
    return WithAUHead(model, classifier, num_aus, pool)


class _Elements(TorchDispatchMode):
    """Counts the elements that operations read or write anew; views cost nothing."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = [
                x.numel()
                for x in (*args, *(result if isinstance(result, tuple | list) else (result,)))
                if isinstance(x, Tensor)
            ]
            self.count += max(touched, default=0)
        return result


def count_element_operations(work: Callable[[], object]) -> int:
    """Element-wise operations of ``work()``, which ``count_flops`` does not see: what a loss consists of.

    Every tensor operation that PyTorch carries out, forward and backward, counts once for each element of its largest
    tensor, whether it adds, compares, copies or takes a logarithm. Views count nothing, matrix products are not for
    this counter. It is an upper bound in the currency of ``count_flops`` for work that is no matrix product.
    """
    with _Elements() as elements:
        work()
    return elements.count


def weightless() -> FakeTensorMode:
    """Networks that are built inside have shapes and no numbers: for ``count_flops``."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def count_flops(model: nn.Module, clip_shape: tuple[int, ...]) -> dict[str, float]:
    """Cost of one clip's forward pass, measured by ``torch.utils.flop_counter`` without computing anything.

    The counter counts a multiply-add as two operations (GMACs are half the GFLOPs), sees matrix products, convolutions
    and attention, and leaves out element-wise work. It does not see fused LSTM kernels: theirs are added here from
    the layer sizes.

    Args:
        model: left as it is; runs on tensors without memory (fake tensors), so a paper-size network takes a moment
            only. It may have been built inside ``weightless()``, which saves drawing its weights.
        clip_shape: (T, 3, H, W) of one clip.

    Returns:
        "gflops" and "gmacs" per clip, and "parameters".
    """
    lstm_flops = 0

    def add_lstm(layer: nn.LSTM, inputs: tuple, output) -> None:
        nonlocal lstm_flops
        steps = inputs[0].shape[:-1].numel()  # of all sequences: a clip may have several
        directions = 2 if layer.bidirectional else 1
        for depth in range(layer.num_layers):
            in_features = layer.hidden_size * directions if depth else layer.input_size
            lstm_flops += steps * directions * 2 * 4 * layer.hidden_size * (in_features + layer.hidden_size)

    lstms = {name: module for name, module in model.named_modules() if isinstance(module, nn.LSTM)}
    hooks = [module.register_forward_hook(add_lstm) for module in lstms.values()]
    # tensors that are neither parameters nor buffers, as position tables in some networks, come along as they are
    fake = getattr(next(model.parameters()), "fake_mode", None) or weightless()
    state = {
        key: tensor.detach() if isinstance(tensor, FakeTensor) else fake.from_tensor(tensor.detach())
        for group in (model.named_parameters(), model.named_buffers())
        for key, tensor in group
    }
    device = next(model.parameters()).device
    training = model.training
    # plain matrix products instead of fused attention: every version of the counter knows those
    try:
        model.eval()
        counter = FlopCounterMode(display=False)
        with fake, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), by_definition(), counter:
            functional_call(model, state, (torch.empty(1, *clip_shape, device=device),))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    # on some devices the LSTM is made of visible products: take those out, so that they are not counted twice
    counted = counter.get_flop_counts()
    visible = sum(sum(counted.get(f"{type(model).__name__}.{name}", {}).values()) for name in lstms)
    total = counter.get_total_flops() - visible + lstm_flops
    return {"gflops": total / 1e9, "gmacs": total / 2e9, "parameters": sum(p.numel() for p in model.parameters())}
