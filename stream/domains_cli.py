"""The commands `driftline domains`: which there are, what one says, and whether a file is one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiles.config import Settings, load_settings
from profiles.domains import Domain, load_domain, shipped
from profiles.errors import SettingsError
from stream.cli_options import AsJson, Config, print_json

domains_app = typer.Typer(no_args_is_help=True, help="List, show and check domains.")

Named = Annotated[str, typer.Argument(help="A shipped name or a file.")]


@domains_app.command("list")
def domains_list(as_json: AsJson = False) -> None:
    """The domains that are shipped, and what each is for.

    Example: `driftline domains list`
    """
    found = [load_domain(name) for name in shipped()]
    if as_json:
        print_json([domain.about for domain in found])
        return
    table = Table("domain", "what it is for")
    for domain in found:
        table.add_row(domain.about.name, escape(domain.about.summary))
    Console().print(table)


@domains_app.command("show")
def domains_show(named: Named, config: Config = None, as_json: AsJson = False) -> None:
    """The settings that a domain makes, what your own file and environment say included.

    Only sections that the domain touches are shown.

    Example: `driftline domains show support`
    """
    domain = load_domain(named)
    settings = load_settings(config, named)
    touched = {name: settings.model_dump(mode="json")[name] for name in domain.settings}
    if as_json:
        print_json({"domain": domain.about, "settings": touched})
        return
    print(f"{domain.about.name}: {domain.about.summary}\nfrom {domain.source}")
    for section, values in touched.items():
        if not isinstance(values, dict):
            print(f"\n{section} = {values}")
            continue
        print(f"\n[{section}]")
        set_here = domain.settings[section]
        for name in set_here if isinstance(set_here, dict) else values:
            print(f"{name} = {values.get(name)}")


@domains_app.command("check")
def domains_check(named: Named, config: Config = None, as_json: AsJson = False) -> None:
    """Read a domain as a worker would; ends with 2 and every mistake at once.

    Example: `driftline domains check my-shop.toml`
    """
    domain = load_domain(named)
    settings = load_settings(config, named)
    check_words(domain, settings)
    liked = [name for name, weight in settings.actions.items() if weight > 0]
    disliked = [name for name, weight in settings.actions.items() if weight < 0]
    if as_json:
        print_json(
            {
                "domain": domain.about.name,
                "prefix": settings.topics.prefix,
                "wanted": liked,
                "unwanted": disliked,
                "objective": settings.learner.objective,
            }
        )
        return
    print(
        f"{domain.about.name} is good: topics {settings.topics.prefix}.*, "
        f"{len(settings.actions)} actions ({len(liked)} wanted, {len(disliked)} unwanted), "
        f"objective {settings.learner.objective}"
    )


def check_words(domain: Domain, settings: Settings) -> None:
    """Raises: SettingsError where `[domain]` and the sections disagree."""
    if missing := [name for name in domain.about.words if name not in settings.actions]:
        raise SettingsError(
            f"domain {domain.about.name!r}: words names {', '.join(missing)}, which [actions] lacks"
        )
    foreign = settings.data.event_names
    if lost := sorted({ours for ours in foreign.values() if ours not in settings.actions}):
        raise SettingsError(
            f"domain {domain.about.name!r}: data.event_names leads to {', '.join(lost)}, which "
            "[actions] lacks"
        )
