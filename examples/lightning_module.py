"""A Lightning module with sparse gradients, and the norm of all gradients clipped.

    python examples/lightning_module.py [FOLDER] [--epochs N] [--stock]

Model and sentences are those of novel_sentences.py. `Trainer(gradient_clip_val=...)` calls clip_grad_norm_. It raises
NotImplementedError where a gradient is sparse. sparseopt's optimizers clip in their step: `max_grad_norm=...`. --stock
shows the error of torch.optim.SparseAdam with the Trainer's clipping.
"""

import argparse

import lightning
import torch
import torch.nn.functional as F
from novel_sentences import Classifier, generate, loaders_of, read

import sparseopt.torch


class NovelSentences(lightning.LightningModule):
    def __init__(self, classes, lr=5e-3, max_grad_norm=1.0, **shape):
        super().__init__()
        self.lr, self.max_grad_norm = lr, max_grad_norm
        self.model = Classifier(classes, **shape)

    def training_step(self, batch, _):
        words, starts, novels = batch
        return F.cross_entropy(self.model(words, starts), novels)

    def validation_step(self, batch, _):
        words, starts, novels = batch
        right = self.model(words, starts).argmax(1) == novels
        self.log("accuracy", right.float().mean(), prog_bar=True, batch_size=len(novels))

    def configure_optimizers(self):
        return sparseopt.torch.Adam(self.parameters(), lr=self.lr, max_grad_norm=self.max_grad_norm)


class Stock(NovelSentences):
    """As torch has it: SparseAdam for the table. The layer stays as it is, since SparseAdam refuses dense gradients."""

    def configure_optimizers(self):
        self.model.layer.requires_grad_(False)
        return torch.optim.SparseAdam(self.model.bag.parameters(), lr=self.lr)


def trainer(**options):
    return lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--stock", action="store_true")
    options = parser.parse_args()
    lightning.seed_everything(0)
    training, test = loaders_of(read(options.folder) if options.folder else generate())
    classes = 1 + max(novel for _, novel in training.dataset)
    if options.stock:
        try:
            trainer(max_epochs=options.epochs, gradient_clip_val=1.0).fit(Stock(classes), training, test)
        except NotImplementedError as error:
            print("NotImplementedError:", str(error).split(". ")[0])
    else:
        trainer(max_epochs=options.epochs).fit(NovelSentences(classes), training, test)


if __name__ == "__main__":
    main()
