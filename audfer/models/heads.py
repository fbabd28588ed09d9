"""The AU plug-in for any network (section 3.2: one more linear layer on the classifier's input), and its cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..errors import AudferError
from .output import Output, by_definition


class WithAUHead(nn.Module):
    """A network with an AU head beside one of its linear layers. Made by :func:`attach_au_head`.

    ``forward`` takes what the wrapped network takes and gives :class:`Output`: the classifier's own output as expression
    logits (whatever the network does after it), AU logits, and the features that both saw.

    Attributes:
        model: the network, unchanged; ``wrapped.model.state_dict()`` has the keys that it always had.
        au_head: the added linear layer.
        classifier: the classifier's name in ``model``.
    """

    def __init__(self, model: nn.Module, classifier: str, num_aus: int):
        super().__init__()
        linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        if classifier not in linears:
            raise AudferError(f"{type(model).__name__} has no linear layer named {classifier!r}, expected one of: "
                              f"{', '.join(linears) or '(it has none)'}")
        self.model, self.classifier = model, classifier
        layer = linears[classifier]
        self.au_head = nn.Linear(layer.in_features, num_aus, device=layer.weight.device, dtype=layer.weight.dtype)
        self._seen: tuple[Tensor, Tensor] | None = None
        self._hook = layer.register_forward_hook(self._remember)

    def _remember(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._seen = (inputs[0], output)

    def forward(self, *args, **kwargs) -> Output:
        self._seen = None
        self.model(*args, **kwargs)
        if self._seen is None:
            raise AudferError(f"the network's forward pass did not call its layer {self.classifier!r}, so there are no "
                              "features for the AU head; name the layer that makes the expression logits")
        features, logits = self._seen
        self._seen = None                                                  # keep no graph alive between steps
        if features.ndim != 2:
            raise AudferError(f"the layer {self.classifier!r} receives features of the shape {tuple(features.shape)}, expected "
                              "(batch, features): one vector a clip")
        return Output(logits, self.au_head(features), features)

    def remove(self) -> nn.Module:
        """Take the AU head off again: the wrapped network without our hook."""
        self._hook.remove()
        return self.model


def attach_au_head(model: nn.Module, classifier: str = "fc", num_aus: int = 18) -> WithAUHead:
    """Add an AU head to anybody's network, without touching its code.

    Args:
        model: a network that turns clips into expression logits through a final linear layer.
        classifier: name of that layer, as in ``model.named_modules()`` ("fc", "head", "classifier.1", ...). The AU head
            is put on the same device, in the same precision.
        num_aus: AUs, in ``facs.ACTION_UNITS`` order for 18.

    Returns:
        A module whose forward gives :class:`Output`; train it with ``losses.combined_loss``.

    Raises:
        AudferError: ``model`` has no linear layer of that name; the sentence lists those it has.

    Example:
        >>> wrapped = attach_au_head(my_network, classifier="fc")                      # doctest: +SKIP
        >>> output = wrapped(clips)                                                    # doctest: +SKIP
        >>> loss = combined_loss(cross_entropy(output.expression_logits, expressions),
        ...                      au_loss(output.au_logits, au_labels, expressions), au_ratio=0.25)  # doctest: +SKIP
    """
    return WithAUHead(model, classifier, num_aus)


def count_flops(model: nn.Module, clip_shape: tuple[int, ...]) -> dict[str, float]:
    """Cost of one clip's forward pass, measured by ``torch.utils.flop_counter`` without computing anything.

    The counter counts a multiply-add as two operations (GMACs are half the GFLOPs), sees matrix products, convolutions
    and attention, and leaves out element-wise work. It does not see fused LSTM kernels: theirs are added here from
    the layer sizes.

    Args:
        model: left as it is; runs on tensors without memory (fake tensors), so a paper-size network takes a moment only.
        clip_shape: (T, 3, H, W) of one clip.

    Returns:
        "gflops" and "gmacs" per clip, and "parameters".
    """
    lstm_flops = 0
    hooks = []

    def add_lstm(layer: nn.LSTM, inputs: tuple, output) -> None:
        nonlocal lstm_flops
        steps = inputs[0].shape[1 if layer.batch_first else 0]
        for depth in range(layer.num_layers):
            directions = 2 if layer.bidirectional else 1
            in_features = layer.input_size if depth == 0 else layer.hidden_size * directions
            lstm_flops += steps * directions * 2 * 4 * layer.hidden_size * (in_features + layer.hidden_size)

    names = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.LSTM):
            names[f"{type(model).__name__}.{name}"] = module
            hooks.append(module.register_forward_hook(add_lstm))
    fake = FakeTensorMode()
    state = {key: fake.from_tensor(tensor.detach())
             for group in (model.named_parameters(), model.named_buffers()) for key, tensor in group}
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
    visible = sum(sum(counted.get(name, {}).values()) for name in names)
    total = counter.get_total_flops() - visible + lstm_flops
    return {"gflops": total / 1e9, "gmacs": total / 2e9, "parameters": sum(p.numel() for p in model.parameters())}
