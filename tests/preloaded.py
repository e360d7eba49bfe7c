"""What the processes of tests are made of, imported once by the fork server of `prepared`."""

from __future__ import annotations

import peft
from transformers import AutoModel, AutoTokenizer, BertModel

import learner.service
import stream.app
import stream.assembly
import stream.cli
import stream.language_model

# transformers imports a class only where it is named.
PRELOADED = (
    *(peft.PeftModel, AutoModel, AutoTokenizer, BertModel),
    *(learner.service, stream.app, stream.assembly, stream.cli, stream.language_model),
)
