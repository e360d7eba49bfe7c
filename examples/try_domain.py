"""Play a domain's little example: items, what two users do and say, and what each is recommended.

Run it beside a broker, a learner and a worker of the same domain:

    export DRIFTLINE_DOMAIN=support
    driftline broker & driftline learn & driftline worker &
    python examples/try_domain.py support

The data (examples/domains/NAME.json) is made up: it shows the shapes of items and events, and
says nothing about quality.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from profiles.config import load_settings
from profiles.errors import SettingsError
from stream.client import Driftline, DriftlineError, Item

DATA = Path(__file__).parent / "domains"


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a user does, or says, or both."""

    user: str
    action: str
    item: str = ""
    text: str | None = None
    value: float | None = None


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A domain's example; `data` says where it comes from."""

    data: str
    items: list[Item]
    acts: list[Act]


def load_example(name: str) -> Example:
    """The example of a shipped domain.  Raises: SettingsError when it has none."""
    file = DATA / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in DATA.glob("*.json")))
        raise SettingsError(f"there is no example {name!r}; there are {known}")
    return msgspec.json.decode(file.read_bytes(), type=Example)


def main() -> int:
    """Produce, ask, and show what comes back."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("domain", help="ecommerce, news, video, support or finance")
    parser.add_argument("--bootstrap", help="host:port of Kafka; default: the settings'")
    parser.add_argument("--wait-s", type=float, default=30.0, help="how long to wait")
    args = parser.parse_args()
    try:
        example = load_example(args.domain)
        with Driftline(load_settings(domain=args.domain), bootstrap=args.bootstrap) as driftline:
            play(driftline, example, args.wait_s)
    except DriftlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def play(driftline: Driftline, example: Example, wait_s: float) -> None:
    """The whole story.  Raises: DriftlineError."""
    print(f"data: {example.data}")
    driftline.put_items(example.items)
    for act in example.acts:
        driftline.act(act.user, act.item, act.action, text=act.text, value=act.value)
        said = "" if act.text is None else f' "{act.text}"'
        print(f"  {act.user} {act.action} {act.item}{said}")
    for user in dict.fromkeys(act.user for act in example.acts):
        answer = driftline.recommend(user, k=3, timeout_s=wait_s)
        print(f"\nfor {user}, by {answer.release_id}:")
        for rank, item in enumerate(answer.items, start=1):
            sure = "" if item.probability is None else f"  {item.probability:.0%}"
            print(f"  {rank}. {item.title}  {item.score:.3f}{sure}")
        if answer.hand_over is True:
            chance = answer.confidence
            told = f"{chance:.0%} sure" if isinstance(chance, float) else "not yet calibrated"
            print(f"  -> a human should answer ({told})")


if __name__ == "__main__":
    sys.exit(main())
