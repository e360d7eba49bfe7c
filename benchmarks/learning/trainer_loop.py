"""The plain way: `transformers.Trainer` around a PEFT model, every example bringing its texts.

The collator tokenizes and pads, the model's forward encodes what it is given and computes the same
loss as ours, Trainer does the rest.  `Collator.distinct` is the more careful user, who sends each
text of a batch once.  Trainer's own bfloat16 is a flag.  The base's dropout is off, as it is in
ours, so that losses can be compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.clocks import clock_of
from benchmarks.learning.task import Task
from benchmarks.learning.timing import Steps
from learner.model import Batch
from learner.optimisation import head_groups

# Any below: Trainer passes batches as dictionaries of whatever the collator makes, and transformers
# does not type its tokenizers and models.


class Collator:
    """A batch's windows, and its texts as a padded rectangle of tokens."""

    def __init__(self, task: Task, *, distinct: bool) -> None:
        self._task, self._distinct = task, distinct
        self.tokens: list[int] = []

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        task = self._task
        batch = task.batch(numbers[0])
        rows = task.rows_of(batch)
        if self._distinct:
            rows = torch.unique(rows)
        encoder = task.language.encoder
        texts = [task.catalogue.texts[row] for row in rows.tolist()]
        made = encoder.tokenizer(
            texts, padding=True, truncation=True, max_length=encoder.max_tokens, return_tensors="pt"
        )
        self.tokens.append(made["input_ids"].numel())
        windows = {name: getattr(batch, name) for name in Batch.__slots__}
        return {"number": numbers[0], "rows": rows, "windows": windows, **made}


class TextRecommender(torch.nn.Module):
    """PEFT encoder and head as one module with a loss, as Trainer wants it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.encoder, self.head = task.language.encoder.model, task.head
        self._task = task
        self._text = task.first_text.clone()
        self.losses: list[float] = []
        self.examples: list[int] = []

    def train(self, mode: bool = True) -> TextRecommender:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(
        self,
        number: int,
        rows: Tensor,
        windows: Mapping[str, Tensor],
        input_ids: Tensor,
        attention_mask: Tensor,
        **_: Tensor,
    ) -> dict[str, Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        vectors = torch.nn.functional.normalize(pooled.float(), dim=-1)
        self._text.index_copy_(0, rows, vectors.detach())
        text = self._text.index_copy(0, rows, vectors)
        batch = Batch(**windows)
        with torch.autocast(text.device.type, enabled=False):  # ours has the head in float32, too
            loss = self._task.loss(text, batch, number)
        self.losses.append(loss.item())
        self.examples.append(int((batch.weights > 0).sum()))
        return {"loss": loss}


def trainer_steps(task: Task, steps: int, *, distinct: bool, bfloat16: bool) -> Steps:
    """The same by Trainer: one step that is not timed, then `steps` that are."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    task.reset()
    model, collator = TextRecommender(task), Collator(task, distinct=distinct)
    clock = clock_of(task.device)
    ends: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(clock())

    weights = list(task.language.weights().values())
    groups = head_groups(task.head, [], task.learner)
    optimiser = torch.optim.AdamW(
        [
            *({**group, "lr": task.learner.head_lr} for group in groups),
            {"params": weights, "lr": task.learner.lora_lr, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
    )
    constant = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            max_steps=steps + 1,
            per_device_train_batch_size=1,  # an element of the data set is a whole batch
            train_sampling_strategy="sequential",
            max_grad_norm=0.0,
            bf16=bfloat16,
            use_cpu=not task.device.startswith("cuda"),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=list(range(steps + 1)),  # batch numbers
            data_collator=collator,
            optimizers=(optimiser, constant),
            callbacks=[Watch()],
        ).train()
    tokens = sum(collator.tokens[1 : steps + 1])
    return Steps(model.losses, ends[-1] - ends[0], sum(model.examples[1:]), tokens)
