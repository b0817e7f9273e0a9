"""Tag the words of sentences (determiner, noun, verb, ...) with an LSTM, a sentence at a time.

The part-of-speech tagger of the tutorials: each word's vector (Embedding) goes through an LSTM, whose state
after the word gives, through a Linear layer and log_softmax, the tag. The sentences are below, tagged by
hand; some are held out, with words in places where training has not seen them.

    python examples/lstm_tagger.py --compile
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from tqdm import tqdm

import graphc
import graphc.nn.functional as F
from graphc import nn

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TRAINING = """
the/D cat/N sleeps/V
a/D small/J cat/N watches/V the/D bird/N
the/D bird/N sings/V loudly/R
every/D child/N loves/V a/D story/N
the/D teacher/N reads/V a/D long/J story/N
a/D teacher/N quietly/R watches/V the/D child/N
the/D old/J clock/N runs/V slowly/R
a/D dog/N runs/V
the/D dog/N loudly/R greets/V every/D small/J child/N
every/D bird/N loves/V the/D long/J summer/N
the/D summer/N ends/V slowly/R
a/D long/J story/N ends/V
the/D small/J clock/N sings/V
every/D old/J dog/N sleeps/V quietly/R
"""
HELD_OUT = """
the/D old/J teacher/N sleeps/V
a/D small/J dog/N greets/V the/D teacher/N
every/D child/N sings/V quietly/R
the/D cat/N slowly/R watches/V a/D long/J summer/N
"""
TAGS = {"D": "determiner", "N": "noun", "V": "verb", "J": "adjective", "R": "adverb"}
Sentence = tuple[list[str], list[str]]


def sentences(text: str) -> list[Sentence]:
    """Words and tags of each line."""
    found = []
    for line in text.strip().splitlines():
        words, tags = zip(*[pair.split("/") for pair in line.split()], strict=True)
        found.append((list(words), list(tags)))
    return found


class LSTMTagger(nn.Module):
    def __init__(self, embedding_dim: int, hidden_dim: int, vocabulary: int, tags: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim)
        self.hidden2tag = nn.Linear(hidden_dim, tags)

    def forward(self, sentence):
        embeds = self.word_embeddings(sentence)
        lstm_out, _ = self.lstm(embeds.view(len(sentence), 1, -1))
        return F.log_softmax(self.hidden2tag(lstm_out.view(len(sentence), -1)), dim=1)


def numbers(items: list[str], table: dict[str, int]) -> graphc.Tensor:
    return graphc.tensor([table[item] for item in items])


def accuracy(model: nn.Module, data: list[Sentence], words: dict[str, int], tags: dict[str, int]) -> float:
    right = total = 0
    with graphc.no_grad():
        for sentence, wanted in data:
            found = model(numbers(sentence, words)).argmax(dim=1)
            right += int((found == numbers(wanted, tags)).sum())
            total += len(wanted)
    return right / total


def plot(losses: list[float], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(losses)
    axes.set(xlabel="epoch", ylabel="negative log-likelihood of a tag", yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the training step")
    parser.add_argument("--plot", type=Path, help="write a PNG of the training loss here")
    args = parser.parse_args()

    graphc.manual_seed(args.seed)
    training, held_out = sentences(TRAINING), sentences(HELD_OUT)
    vocabulary = sorted({word for words, _ in training for word in words})
    words = {word: i for i, word in enumerate(vocabulary)}
    tags = {tag: i for i, tag in enumerate(TAGS)}
    model = LSTMTagger(12, 16, len(words), len(tags))
    loss_function = nn.NLLLoss()
    optimizer = graphc.optim.SGD(model.parameters(), lr=args.lr)

    def train_step(sentence, targets):
        model.zero_grad()
        loss = loss_function(model(sentence), targets)
        loss.backward()
        optimizer.step()
        return loss

    step = graphc.compile(train_step) if args.compile else train_step
    data = [(numbers(sentence, words), numbers(wanted, tags)) for sentence, wanted in training]
    order = np.random.default_rng(args.seed)
    losses, seconds = [], []
    progress = tqdm(range(args.epochs), desc="tagger", unit="epoch")
    for _ in progress:
        total = 0.0
        for i in order.permutation(len(data)):
            begin = time.perf_counter()
            total += step(*data[i]).item()
            seconds.append(time.perf_counter() - begin)
        losses.append(total / len(data))
        progress.set_postfix(loss=f"{losses[-1]:.4f}")

    with graphc.no_grad():
        for sentence, _ in held_out:
            found = model(numbers(sentence, words)).argmax(dim=1).tolist()
            print("  ".join(f"{w}: {list(TAGS.values())[t]}" for w, t in zip(sentence, found, strict=True)))
    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(losses, args.plot)
    print(
        f"final training loss {losses[-1]:.5f}, "
        f"training accuracy {accuracy(model, training, words, tags):.4f}, "
        f"held-out accuracy {accuracy(model, held_out, words, tags):.4f}, "
        f"{1e3 * np.median(seconds):.3f} ms per sentence"
    )


if __name__ == "__main__":
    main()
