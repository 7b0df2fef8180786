"""Encoders of nodes that are trained to give the edges back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.conv.attention import absent_pairs
from gdsl.nn.inits import reset
from gdsl.runtime.items import HALF

EPS = 1e-15
MAX_LOGSTD = 10


class InnerProductDecoder(nn.Module):
    """sigmoid(z_i . z_j). Kipf and Welling, "Variational Graph Auto-Encoders", 2016, equation 2."""

    def forward(self, z: Tensor, edge_index: Tensor, sigmoid: bool = True) -> Tensor:
        """[N, channels] and pairs [2, E] to [E]: how probable the edges are, or the scores of this."""
        value = (z[edge_index[0]] * z[edge_index[1]]).sum(dim=1)
        return value.sigmoid() if sigmoid else value

    def forward_all(self, z: Tensor, sigmoid: bool = True) -> Tensor:
        """The same for all pairs: [N, N]."""
        value = z @ z.t()
        return value.sigmoid() if sigmoid else value


class GAE(nn.Module):
    """An encoder and a decoder. Kipf and Welling, "Variational Graph Auto-Encoders", 2016, section 2.

    encoder: a module that gives z [N, channels]
    decoder: of z and pairs; :class:`InnerProductDecoder` without one
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None = None):
        super().__init__()
        self.encoder = encoder
        self.decoder: Any = InnerProductDecoder() if decoder is None else decoder
        GAE.reset_parameters(self)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        reset(self.encoder)
        reset(self.decoder)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the encoder gives."""
        return self.encoder(*args, **kwargs)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """What the encoder gives."""
        return self.encoder(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """What the decoder gives."""
        return self.decoder(*args, **kwargs)

    def recon_loss(self, z: Tensor, pos_edge_index: Tensor, neg_edge_index: Tensor | None = None) -> Tensor:
        """The binary cross entropy of edges [2, E] and of pairs that are none, of which as many are drawn without. In
        half precision, where a probability of 0.998 is 1 and its loss infinite, z is taken in float32.
        """
        z = z if z.dtype not in HALF else z.float()
        if neg_edge_index is None:
            neg_edge_index = absent_pairs(pos_edge_index, z.size(0), pos_edge_index.size(1))
        good, bad = (self.decoder(z, pairs, sigmoid=True) for pairs in (pos_edge_index, neg_edge_index))
        return _surprise(good) + _surprise(1 - bad)

    def test(self, z: Tensor, pos_edge_index: Tensor, neg_edge_index: Tensor) -> tuple[float, float]:
        """The area under the ROC curve and the average precision for edges and for pairs that are none."""
        good, bad = (self.decoder(z, pairs, sigmoid=True) for pairs in (pos_edge_index, neg_edge_index))
        return ranking(good.detach(), bad.detach())


class VGAE(GAE):
    """:class:`GAE` with a normal distribution for each node. Kipf and Welling, 2016, section 1.

    encoder: a module that gives means and logarithms of deviations, [N, channels] each
    decoder: as there
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None = None):
        super().__init__(encoder, decoder)
        self.__mu__: Tensor
        self.__logstd__: Tensor

    def reparametrize(self, mu: Tensor, logstd: Tensor) -> Tensor:
        """A draw in training, and the mean otherwise."""
        return mu + torch.randn_like(logstd) * torch.exp(logstd) if self.training else mu

    def encode(self, *args: Any, **kwargs: Any) -> Tensor:
        """A draw of what the encoder gives; see :meth:`reparametrize`."""
        mu, logstd = self.encoder(*args, **kwargs)
        self.__mu__, self.__logstd__ = mu, logstd.clamp(max=MAX_LOGSTD)
        return self.reparametrize(self.__mu__, self.__logstd__)

    def kl_loss(self, mu: Tensor | None = None, logstd: Tensor | None = None) -> Tensor:
        """The divergence from a standard normal distribution, of what was encoded last without arguments."""
        mu = self.__mu__ if mu is None else mu
        logstd = self.__logstd__ if logstd is None else logstd.clamp(max=MAX_LOGSTD)
        return -0.5 * (1 + 2 * logstd - mu**2 - (2 * logstd).exp()).sum(dim=1).mean()


class ARGA(GAE):
    """:class:`GAE` whose z a discriminator shall not tell from normal numbers. Pan et al., "Adversarially Regularized
    Graph Autoencoder for Graph Embedding", IJCAI 2018, section 4.

    encoder, decoder: as there
    discriminator:    a module on z
    """

    def __init__(self, encoder: nn.Module, discriminator: nn.Module, decoder: nn.Module | None = None):
        super().__init__(encoder, decoder)
        self.discriminator = discriminator
        reset(self.discriminator)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        reset(self.discriminator)

    def reg_loss(self, z: Tensor) -> Tensor:
        """What the encoder loses where z is told from normal numbers."""
        return _surprise(torch.sigmoid(self.discriminator(z)))

    def discriminator_loss(self, z: Tensor) -> Tensor:
        """What the discriminator loses where it is not."""
        real = torch.sigmoid(self.discriminator(torch.randn_like(z)))
        fake = torch.sigmoid(self.discriminator(z.detach()))
        return _surprise(real) + _surprise(1 - fake)


class ARGVA(ARGA):
    """:class:`ARGA` of a :class:`VGAE`. Pan et al., IJCAI 2018, section 4.3. Arguments as there."""

    def __init__(self, encoder: nn.Module, discriminator: nn.Module, decoder: nn.Module | None = None):
        super().__init__(encoder, discriminator, decoder)
        self.VGAE = VGAE(encoder, decoder)

    @property
    def __mu__(self) -> Tensor:
        return self.VGAE.__mu__

    @property
    def __logstd__(self) -> Tensor:
        return self.VGAE.__logstd__

    def reparametrize(self, mu: Tensor, logstd: Tensor) -> Tensor:
        """As in :class:`VGAE`."""
        return self.VGAE.reparametrize(mu, logstd)

    def encode(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in :class:`VGAE`."""
        return self.VGAE.encode(*args, **kwargs)

    def kl_loss(self, mu: Tensor | None = None, logstd: Tensor | None = None) -> Tensor:
        """As in :class:`VGAE`."""
        return self.VGAE.kl_loss(mu, logstd)


def _surprise(probability: Tensor) -> Tensor:
    return -(probability + EPS).log().mean()


def ranking(good: Tensor, bad: Tensor) -> tuple[float, float]:
    """The area under the ROC curve and the average precision of scores [P] and [N]. Equal scores are one threshold."""
    scores, labels = torch.cat([good, bad]).double(), torch.cat([torch.ones(len(good)), torch.zeros(len(bad))]).double()
    threshold, place = torch.unique(-scores, return_inverse=True)
    right, seen = (
        torch.zeros(len(threshold), dtype=torch.float64, device=scores.device).index_add(0, place, each.to(scores))
        for each in (labels, torch.ones_like(labels))
    )
    wrong = seen - right
    above, of_all = right.cumsum(0), float(len(good))
    area = ((above - right / 2) * wrong).sum() / (of_all * len(bad))
    precision = (above / seen.cumsum(0) * right).sum() / of_all
    return float(area), float(precision)
