"""A perceptron with norms, as torch_geometric's models have it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from gdsl.language.modules import Unreadable
from gdsl.nn.activations import activation
from gdsl.nn.linear import Linear
from gdsl.nn.norm import norm_resolver, takes_batch


class MLP(nn.Module):
    """Linear maps with norms, functions and dropout between them. Rosenblatt 1958; Ioffe and Szegedy, ICML 2015.

    channel_list: sizes of inputs, hidden features and outputs; or the size of the inputs, as ``in_channels``
    in_channels, hidden_channels, out_channels, num_layers: the same where the hidden sizes are equal
    dropout:      after each layer but a plain last one; a list has one for each layer
    act, act_kwargs: the name of a class of torch.nn, a function, or None
    act_first:    whether it comes before the norm
    norm, norm_kwargs: the name of one of :mod:`gdsl.nn.norm`, a module that all layers share, or None
    plain_last:   whether the last layer is a linear map alone
    bias:         whether the linear maps have one; a list has it for each layer

    A layer whose network it is reads it as it reads an ``nn.Sequential``.

    Raises ValueError for sizes that are missing, and for lists of another length.
    """

    def __init__(
        self,
        channel_list: list[int] | int | None = None,
        *,
        in_channels: int | None = None,
        hidden_channels: int | None = None,
        out_channels: int | None = None,
        num_layers: int | None = None,
        dropout: float | list[float] = 0.0,
        act: str | Callable[[Tensor], Tensor] | None = "relu",
        act_first: bool = False,
        act_kwargs: dict[str, Any] | None = None,
        norm: Any = "batch_norm",
        norm_kwargs: dict[str, Any] | None = None,
        plain_last: bool = True,
        bias: bool | list[bool] = True,
        **kwargs: Any,
    ):
        super().__init__()
        if isinstance(kwargs.get("batch_norm"), bool):
            warnings.warn(
                "Argument `batch_norm` is deprecated, please use `norm` to specify normalization layer.", stacklevel=2
            )
            norm, norm_kwargs = "batch_norm" if kwargs["batch_norm"] else None, kwargs.get("batch_norm_kwargs")
        inputs = channel_list if isinstance(channel_list, int) else in_channels
        sizes: Any = channel_list if inputs is None else _equal(inputs, hidden_channels, out_channels, num_layers)
        assert isinstance(sizes, tuple | list) and len(sizes) >= 2, "an MLP has sizes of inputs and outputs"
        layers = len(sizes) - 1
        if isinstance(dropout, int | float):
            dropout = [float(dropout)] * (layers - plain_last) + [0.0] * plain_last
        biases = [bias] * layers if isinstance(bias, bool) else bias
        _check_length("dropout", dropout, layers)
        _check_length("bias", biases, layers)
        self.channel_list = sizes
        self.act: Any = activation(act, **(act_kwargs or {}))
        self.act_first = act_first or bool(kwargs.get("relu_first", False))
        self.plain_last = plain_last
        self.dropout = dropout
        self.lins = nn.ModuleList(Linear(a, b, bias=c) for a, b, c in zip(sizes, sizes[1:], biases, strict=False))
        self.norms = nn.ModuleList(
            nn.Identity() if norm is None else norm_resolver(norm, size, **(norm_kwargs or {}))
            for size in (sizes[1:-1] if plain_last else sizes[1:])
        )
        self.supports_norm_batch = len(self.norms) > 0 and takes_batch(self.norms[0])
        self.reset_parameters()

    @property
    def in_channels(self) -> int:
        """Size of the inputs."""
        return int(self.channel_list[0])

    @property
    def out_channels(self) -> int:
        """Size of the outputs."""
        return int(self.channel_list[-1])

    @property
    def num_layers(self) -> int:
        """The number of linear maps."""
        return len(self.channel_list) - 1

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for part in (*self.lins, *self.norms):
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()

    def see(self, x: Tensor) -> None:
        """Take the size of the inputs from the first of them, [..., in_channels]."""
        self.lins[0].see(x)  # type: ignore[operator]

    def forward(
        self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None, return_emb: bool | None = None
    ) -> Any:
        """[..., in_channels] to [..., out_channels].

        batch, batch_size: [N] the graph of each row, and their number, for norms that ask
        return_emb: True gives the hidden features before the last layer, too; False gives None in their place
        """
        hidden = None
        for lin, norm, p in zip(self.lins, self.norms, self.dropout, strict=False):
            x = lin(x)
            x = self.act(x) if self.act is not None and self.act_first else x
            x = norm(x, batch, batch_size) if self.supports_norm_batch else norm(x)
            x = self.act(x) if self.act is not None and not self.act_first else x
            x = functional.dropout(x, p, self.training)
            hidden = x if return_emb is True else None
        if self.plain_last:
            x = functional.dropout(self.lins[-1](x), self.dropout[-1], self.training)
        return (x, hidden) if isinstance(return_emb, bool) else x

    def read_parts(self) -> Iterator[tuple[str, Any]]:
        """The modules that rows go through, by name, for a program that reads this one."""
        if self.training and any(self.dropout):
            raise Unreadable
        act = [] if self.act is None else [("act", self.act)]
        for k in range(len(self.lins)):
            yield f"lins.{k}", self.lins[k]
            if k < len(self.norms):
                norm = [(f"norms.{k}", self.norms[k])]
                yield from act + norm if self.act_first else norm + act

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.channel_list)[1:-1]})"


def _equal(inputs: int, hidden: int | None, outputs: int | None, layers: int | None) -> list[int | None]:
    """The sizes of so many layers. Raises ValueError for what is missing."""
    if layers is None:
        raise ValueError("Argument `num_layers` must be given")
    if layers > 1 and hidden is None:
        raise ValueError(f"Argument `hidden_channels` must be given for `num_layers={layers}`")
    if outputs is None:
        raise ValueError("Argument `out_channels` must be given")
    return [inputs, *[hidden] * (layers - 1), outputs]


def _check_length(name: str, values: Sequence[Any], layers: int) -> None:
    if len(values) != layers:
        raise ValueError(
            f"Number of {name} values provided ({len(values)}) does not match the number of layers specified ({layers})"
        )
