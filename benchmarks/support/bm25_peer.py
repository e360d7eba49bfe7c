"""BM25 as the library bm25s ships it, in the peers' own environment: scores of every answer.

    python bm25_peer.py FOLDER      reads FOLDER/texts.json, writes FOLDER/scores.npy

English stop words and the library's own tokenizer and defaults; no stemmer.  Imports nothing of
ours.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Shapes: answers A, questions Q -> scores (Q, A)."""
    import bm25s

    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts["answers"], stopwords="en", show_progress=False))
    asked = bm25s.tokenize(
        texts["questions"], stopwords="en", show_progress=False, return_ids=False
    )
    scores = np.stack([index.get_scores(words) for words in asked]).astype(np.float32)
    np.save(folder / "scores.npy", scores)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
