"""How the model improves: replay, sampling, training, evaluation, the gate, and publishing.

The learner follows the same events as the stream, in a process and a consumer group of its own.
It stands on `profiles` and never imports `stream`; the two meet only in topics and the release
store. The training core needs torch, transformers, peft, safetensors, numpy and numba alone.
"""
