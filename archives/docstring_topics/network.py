"""The network of ``docstring_topics``: the words of texts in, the scores of their topics out."""

import torch
from torch import nn


class TopicsNetwork(nn.Module):
    """Reads texts word by word, for as many steps as the longest has words; the mean of all steps decides.

    How long that is only the data tells: ``torch.jit.script`` keeps the loop, ``torch.jit.trace`` would note the
    steps of its one example and cut longer texts off there.

    Args:
        word_count: words that it knows, numbered from 1.
        topic_count: topics to choose from.
        width: numbers that it remembers from word to word.
    """

    def __init__(self, word_count: int, topic_count: int, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(word_count + 1, width)
        # Small at first: a word that is seen three times should not begin as loud as it may end.
        nn.init.normal_(self.words.weight, std=0.1)
        self.memory = nn.GRUCell(width, width)
        self.topics = nn.Linear(width, topic_count)
        self.dropout = nn.Dropout(0.5)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return scores, ``float32 (batch, topics)``.

        Args:
            words: numbers of words, ``int64 (batch, any)``; what stands behind a text's end is not read.
            lengths: words of each text, ``int64 (batch,)``, from 1 on.
        """
        longest = int(lengths.max())
        seen = self.dropout(self.words(words[:, :longest]))
        memory = torch.zeros_like(seen[:, 0])
        total = torch.zeros_like(memory)
        step = 0
        while step < longest:
            memory = self.memory(seen[:, step], memory)
            total = total + memory * (lengths > step).unsqueeze(1)
            step += 1
        return self.topics(self.dropout(total / lengths.unsqueeze(1)))
