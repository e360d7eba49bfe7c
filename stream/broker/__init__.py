"""A real Apache Kafka without Docker: for the demo, the tests and a first look.

`embedded` runs the broker, `artefacts` gets its jars and Java, `service` is `driftline broker`.
"""

from stream.broker.embedded import FAST_START, THROUGHPUT, EmbeddedKafka
from stream.broker.service import run_broker

__all__ = ["FAST_START", "THROUGHPUT", "EmbeddedKafka", "run_broker"]
