"""A GIN on molecules, trained by Lightning's `Trainer` from a packed data set.

    python examples/trainer.py                   MUTAG, 30 epochs
    python examples/trainer.py --short           three epochs: does it run at all?

A loader of gdsl.data is all that a `LightningDataModule` needs: its batches move themselves, and `data_module` below is
three lines. It needs `pip install 'gdsl[trainer]'`, which is Lightning.
"""

from __future__ import annotations

import argparse

import lightning
import torch
from data import data_root, generated_graphs
from graphs import Network
from torch import Tensor
from torch.nn import functional as F

from gdsl.data import Batch, Loader, Packed, load_tu


def data_module(train: Packed, test: Packed) -> lightning.LightningDataModule:
    data = lightning.LightningDataModule()
    data.train_dataloader = lambda: Loader(train, 32, shuffle=True, seed=0)
    data.test_dataloader = lambda: Loader(test, len(test))
    return data


class Classifier(lightning.LightningModule):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.network = Network("gin", features, classes)

    def training_step(self, batch: Batch) -> Tensor:
        loss = F.cross_entropy(self.network(batch), batch.y)
        self.log("loss", loss, prog_bar=True, batch_size=batch.num_graphs)
        return loss

    def test_step(self, batch: Batch) -> None:
        right = (self.network(batch).argmax(dim=1) == batch.y).float().mean()
        self.log("accuracy", right, batch_size=batch.num_graphs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--short", action="store_true", help="three epochs")
    args = parser.parse_args(argv)
    lightning.seed_everything(0)
    packed = load_tu("MUTAG", data_root())
    if packed is None:
        print("No raw MUTAG files found (set GDSL_DATA to the folder with TUDataset/). Training on generated graphs.")
        packed = generated_graphs()
    order = torch.randperm(len(packed), generator=torch.Generator().manual_seed(0))
    train, test = (packed[part] for part in order.tensor_split([len(packed) * 4 // 5]))
    whole = packed.batch(range(len(packed)))
    trainer = lightning.Trainer(
        max_epochs=3 if args.short else args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_model_summary=False, log_every_n_steps=1, enable_progress_bar=not args.short,
    )  # fmt: skip
    model, data = Classifier(whole.x.shape[1], int(whole.y.max()) + 1), data_module(train, test)
    trainer.fit(model, data)
    (found,) = trainer.test(model, data, verbose=False)
    print(f"test accuracy {100 * found['accuracy']:.1f}%")


if __name__ == "__main__":
    main()
