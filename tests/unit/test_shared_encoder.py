"""One encoder for several domains: each reads with its own releases, side by side, in turns."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.config import Settings, load_settings
from profiles.encoder import TextEncoder
from profiles.errors import ModelError, SettingsError
from profiles.metrics import EncoderMetrics
from profiles.settings.learning import ModelSettings
from stream.shared_encoder.client import SharedModel
from stream.shared_encoder.run import check_apart
from stream.shared_encoder.server import TURN_TEXTS, EncoderServer, Tenant, open_socket
from stream.shared_encoder.wire import MAX_FRAME
from tests.unit.language_models import save_random_adapter

pytestmark = pytest.mark.unit

TEXTS = ["a tale", "a song", "number 7"]
MUCH = 10 * 2**20


@pytest.fixture(scope="module")
def model(tiny_language_model: Path) -> ModelSettings:
    return ModelSettings(base=str(tiny_language_model), dim=8, hidden=8)


@pytest.fixture(scope="module")
def adapters(model: ModelSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of two domains, two releases each; no two read alike."""
    root, made = tmp_path_factory.mktemp("domains"), {}
    for seed, name in enumerate(("news/r1", "news/r2", "shop/r1", "shop/r2")):
        made[name] = save_random_adapter(model, root / name / "adapter", seed)
    return made


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[Path]:
    """A directory with a short path: Unix wants it so."""
    made = Path("/tmp") / f"dl-{tmp_path.name[-20:]}-{id(tmp_path) % 10_000}"
    made.mkdir()
    yield made
    for left in made.iterdir():
        left.unlink()
    made.rmdir()


def alone(model: ModelSettings, adapter: Path) -> np.ndarray:
    return TextEncoder.load(model, adapter).exact(TEXTS)


def tenant(name: str, sockets: Path, adapters: dict[str, Path], model: ModelSettings) -> Tenant:
    root = adapters[f"{name}/r1"].parents[1]
    return Tenant(name, model, sockets / name, (root,))


@contextlib.asynccontextmanager
async def serving(
    tenants: list[Tenant], budget: int = MUCH
) -> AsyncIterator[tuple[EncoderServer, EncoderMetrics]]:
    metrics = EncoderMetrics(CollectorRegistry())
    server = EncoderServer(tenants, budget, metrics)
    task = asyncio.create_task(server.run())
    try:
        yield server, metrics
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def count(metrics: EncoderMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"driftline_encoder_{name}", labels) or 0.0


async def first_turn(metrics: EncoderMetrics) -> None:
    """Until something was read for `news`."""
    while not count(metrics, "texts_total", domain="news"):  # noqa: ASYNC110 # nothing tells
        await asyncio.sleep(0.001)


async def test_each_domain_reads_with_its_own_releases_and_with_no_other(
    model: ModelSettings, adapters: dict[str, Path], sockets: Path
) -> None:
    tenants = [tenant(name, sockets, adapters, model) for name in ("news", "shop")]
    async with serving(tenants) as (server, metrics):
        news, shop = (SharedModel(each.socket, 10.0) for each in tenants)
        await asyncio.gather(news.checked(), shop.checked())
        assert server.is_ready
        mode = stat.S_IMODE(tenants[0].socket.stat().st_mode)
        assert mode == 0o600, "nobody else may ask"
        read = await asyncio.gather(
            news.encode(adapters["news/r1"], TEXTS),
            news.encode(adapters["news/r2"], TEXTS, exact=True),
            shop.encode(adapters["shop/r1"], TEXTS),
        )
        for vectors, name in zip(read, ("news/r1", "news/r2", "shop/r1"), strict=True):
            assert np.allclose(vectors, alone(model, adapters[name]), atol=1e-6), name
        assert (await news.encode(adapters["news/r1"], [])).size == 0
        with pytest.raises(ModelError, match="where domain 'news'"):
            await news.encode(adapters["shop/r1"], TEXTS)
        inside = adapters["news/r1"].parents[1] / "link"
        inside.symlink_to(adapters["shop/r1"])
        with pytest.raises(ModelError, match="where domain 'news'"):
            await news.encode(inside, TEXTS)
        inside.unlink()
        with pytest.raises(ModelError, match="where domain 'shop'"):
            await shop.encode(adapters["shop/r1"].parent / ".." / ".." / "news" / "r1", TEXTS)
        assert count(metrics, "refused_total", reason="foreign-adapter") == 3
        assert count(metrics, "texts_total", domain="news") == 6
        news.close()
        shop.close()


async def test_who_reads_a_catalogue_does_not_keep_others_waiting(
    model: ModelSettings, adapters: dict[str, Path], sockets: Path
) -> None:
    tenants = [tenant(name, sockets, adapters, model) for name in ("news", "shop")]
    async with serving(tenants) as (_, metrics):
        news, shop = (SharedModel(each.socket, 10.0) for each in tenants)
        await shop.checked()
        many = [f"song number {at}" for at in range(40 * TURN_TEXTS)]
        everything = asyncio.create_task(news.encode(adapters["news/r1"], many))
        await asyncio.wait_for(first_turn(metrics), 30)
        await shop.encode(adapters["shop/r1"], TEXTS)
        assert not everything.done()
        assert count(metrics, "texts_total", domain="news") < len(many) / 2
        assert len(await everything) == len(many)
        news.close()
        shop.close()


async def test_an_encoder_that_comes_back_is_asked_again(
    model: ModelSettings, adapters: dict[str, Path], sockets: Path
) -> None:
    here = tenant("news", sockets, adapters, model)
    client = SharedModel(here.socket, 10.0)
    async with serving([here]):
        await client.checked()
        first = await client.encode(adapters["news/r1"], TEXTS)
    waiting = asyncio.create_task(client.encode(adapters["news/r1"], TEXTS))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    async with serving([tenant("news", sockets, adapters, model)]):
        assert np.array_equal(await waiting, first)
    client.close()
    never = SharedModel(sockets / "nobody", 0.3)
    with pytest.raises(ModelError, match="is `driftline encoder` running"):
        await never.checked()


async def test_whoever_sends_no_ask_is_cut_off_and_nobody_else(
    model: ModelSettings, adapters: dict[str, Path], sockets: Path
) -> None:
    here = tenant("news", sockets, adapters, model)
    async with serving([here]) as (_, metrics):
        client = SharedModel(here.socket, 10.0)
        await client.checked()
        for rubbish in (struct.pack(">I", 3) + b"\xc1\xc1\xc1", struct.pack(">I", MAX_FRAME + 1)):
            stream, writer = await asyncio.open_unix_connection(str(here.socket))
            writer.write(rubbish)
            assert await stream.read() == b""
            writer.close()
        assert count(metrics, "refused_total", reason="malformed") == 1
        assert len(await client.encode(adapters["news/r1"], TEXTS)) == len(TEXTS)
        client.close()


def test_a_socket_is_taken_once_and_what_a_killed_encoder_left_is_removed(sockets: Path) -> None:
    path = sockets / "one"
    first = open_socket(path)
    first.listen()
    with pytest.raises(SettingsError, match="another encoder"):
        open_socket(path)
    first.close()
    assert path.exists(), "as after a kill"
    open_socket(path).close()


def test_domains_that_could_read_each_other_are_refused(tmp_path: Path) -> None:
    def settings(socket: str, state: str) -> Settings:
        return load_settings(
            serving={"encoder_socket": socket},
            store={"directory": str(tmp_path / state), "releases": str(tmp_path / state / "r")},
        )

    def tenants(*pairs: tuple[str, str]) -> list[Tenant]:
        return [Tenant.of(f"d{at}", settings(*pair)) for at, pair in enumerate(pairs)]

    check_apart(tenants(("a", "one"), ("b", "two")))
    with pytest.raises(SettingsError, match="have one socket"):
        check_apart(tenants(("a", "one"), ("a", "two")))
    with pytest.raises(SettingsError, match="keep state or releases in"):
        check_apart(tenants(("a", "one"), ("b", "one/two")))
    with pytest.raises(SettingsError, match="has no serving"):
        Tenant.of("d", load_settings())
    with pytest.raises(SettingsError, match="longer than"):
        Tenant.of("d", settings("x" * 200, "one"))
