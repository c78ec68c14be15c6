"""Trains the network of ``docstring_topics`` on the standard library's docstrings and writes it as TorchScript."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from docstrings import TOPICS, Part, load_parts
from network import TopicsNetwork
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).parents[1]))
from torchscript import save_script

SEED = 0
EPOCHS = 8
BRIEF_EPOCHS = 2
BATCH = 64
HIGHEST_RATE = 4e-3
#: Share of each lesson that is spread over all topics. Without it the network becomes surer than it is right.
SMOOTHING = 0.1
#: Words of fewer sentences are not learned.
LEAST_COUNT = 2
#: Below this share of right answers on the held-out sentences no archive is made. Every version of Python has
#: other docstrings, which is what the distance to the card's figure is for.
LEAST_SHARE = 0.65

#: Numbers of words ``int64 (sentences, any)``, words of each sentence ``int64 (sentences,)``, and their topics.
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def words_to_know(learned: Part) -> list[str]:
    """Return the words that are in enough sentences, in alphabetical order."""
    counts = Counter(word for sentence in learned for word in set(sentence))
    return sorted(word for word, count in counts.items() if count >= LEAST_COUNT)


def as_tensors(part: Part, known: list[str]) -> Tensors:
    """Return sentences as the network takes them; without those of which no word is known."""
    numbers = {word: number for number, word in enumerate(known, 1)}
    numbered = [([numbers[word] for word in words if word in numbers], topic) for words, topic in part.items()]
    rows = [(torch.tensor(words), topic) for words, topic in numbered if words]
    lengths = torch.tensor([len(words) for words, _ in rows])
    topics = torch.tensor([topic for _, topic in rows])
    return pad_sequence([words for words, _ in rows], batch_first=True), lengths, topics


def batches_of(lengths: torch.Tensor) -> list[torch.Tensor]:
    """Return the places of all sentences in batches of like lengths, so that few steps pass behind an end."""
    order = torch.randperm(len(lengths))
    batches = order[lengths[order].argsort(stable=True)].split(BATCH)
    return [batches[place] for place in torch.randperm(len(batches)).tolist()]


def train(learned: Tensors, network: TopicsNetwork, epochs: int, progress: Progress) -> None:
    """Show each sentence ``epochs`` times to a network."""
    words, lengths, topics = learned
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    batches_an_epoch = -(-len(topics) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_RATE, epochs * batches_an_epoch)
    bar = progress.add_task("  training", total=epochs)
    network.train()
    for epoch in range(1, epochs + 1):
        losses = []
        for chosen in batches_of(lengths):
            optimizer.zero_grad()
            scores = network(words[chosen], lengths[chosen])
            loss = functional.cross_entropy(scores, topics[chosen], label_smoothing=SMOOTHING)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rate.step()
            losses.append(loss.detach())
        progress.advance(bar)
        if epoch % 4 == 0:
            mean = torch.stack(losses).mean().item()
            progress.console.print(f"  epoch {epoch:3} of {epochs}: mean loss {mean:.4f}", highlight=False)


def right_by_topic(network: TopicsNetwork, held_out: Tensors) -> list[float]:
    """Return the share of sentences that the network names rightly, 0..1: of all, then of each topic's."""
    words, lengths, topics = held_out
    network.eval()
    with torch.inference_mode():
        is_right = (network(words, lengths).argmax(1) == topics).double()
    return [is_right.mean().item(), *(is_right[topics == topic].mean().item() for topic in range(len(TOPICS)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets the network and its words")
    parser.add_argument("--brief", action="store_true", help="learn for a few seconds, whatever comes of it")
    arguments = parser.parse_args()
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so the same weights on any count of cores
    started = time.monotonic()
    parts = load_parts()
    known = words_to_know(parts[0])
    learned, held_out = (as_tensors(part, known) for part in parts)
    network = TopicsNetwork(len(known), len(TOPICS))
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        train(learned, network, BRIEF_EPOCHS if arguments.brief else EPOCHS, progress)
    share, *shares = right_by_topic(network, held_out)
    print(f"  trained in {time.monotonic() - started:.1f} s on {len(learned[2])} sentences with {len(known)} words")
    print(f"  right on the {len(held_out[2])} held-out sentences: {share:.2%}; of each topic: ", end="")
    print(", ".join(f"{topic} {each:.0%}" for topic, each in zip(TOPICS, shares, strict=True)))
    if share <= LEAST_SHARE and not arguments.brief:
        raise SystemExit(f"More than {LEAST_SHARE:.0%} have to be right: change SEED or EPOCHS in {__file__}.")
    vocabulary = json.dumps({"topics": list(TOPICS), "words": known}, indent=0)
    (folder / "docstring_vocabulary.json").write_text(vocabulary + "\n", encoding="utf-8")
    save_script(network, folder / "docstring_topics.pt")


if __name__ == "__main__":
    main()
