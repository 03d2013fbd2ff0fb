"""The commands about models: their names and flags. What they do is in the files that they load."""

from __future__ import annotations

from typing import Annotated

import typer

from localllm.cli.flags import (
    Ctx,
    Goal,
    Hw,
    Json,
    Model,
    Offline,
    Prefer,
    Quant,
    Ram,
    RequiredModel,
    Vram,
)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Sha256 = Annotated[str | None, typer.Option("--sha256", help="What the file's digest must be.")]
Md5 = Annotated[str | None, typer.Option("--md5", help="What the file's digest must be.")]
SeveralModels = Annotated[
    list[str] | None,
    typer.Argument(help="org/repo:Q4_K_M, a .gguf file, demo.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def pull(
    model: Model = None,
    quant: Quant = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, tag or commit of the repository.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", help="This file of the repository, by its path.")
    ] = None,
    sha256: Sha256 = None,
    md5: Md5 = None,
    with_mmproj: Annotated[
        bool, typer.Option("--with-mmproj", help="Its projector as well: it then reads pictures.")
    ] = False,
    with_draft: Annotated[
        bool, typer.Option("--with-draft", help="Its draft model as well.")
    ] = False,
    goal: Goal = None,
    prefer: Prefer = None,
    ctx: Ctx = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Choose the file that suits this machine, download it, and prove it intact.

    Without MODEL: what runs best here, to choose from.
    """
    from localllm.cli import prepare, pull, recommend

    if model is None:
        model = recommend.choose(goal or "chat", offline=offline)
    wishes = prepare.wishes(prefer=prefer, n_ctx=ctx)
    pull.run(
        pull.Request(
            ref=model,
            quant=quant,
            revision=revision,
            file=file,
            claims=pull.claims_of(sha256, md5),
            with_mmproj=with_mmproj,
            with_draft=with_draft,
            goal=goal or "chat",
            wishes=wishes,
        ),
        offline=offline,
        dry_run=dry_run,
        yes=yes,
        as_json=json,
    )


def recommend(
    goal: Goal = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="chat, code, embed, rerank, vision or reasoning."),
    ] = None,
    hw: Hw = None,
    ram: Ram = None,
    vram: Vram = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Which models of the catalogue run best here, and why."""
    from localllm.cli import recommend, simulation

    recommend.run(
        goal=goal or "chat",
        task=task,
        machine=simulation.simulation(hw, ram, vram) or simulation.Simulation(),
        offline=offline,
        as_json=json,
    )


def list_models(json: Json = False) -> None:
    """Which models are here, whether they were verified, and fit now."""
    from localllm.cli import listing

    listing.run(as_json=json)


# A command is called as its function, and `list` is Python's.
list_models.__name__ = "list"


def show(
    model: RequiredModel,
    template: Annotated[
        bool, typer.Option("--template", help="Its chat template, and nothing else.")
    ] = False,
    header: Annotated[bool, typer.Option("--header", help="All keys of its header.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """What is known of a model: its source, what proves it, its plan."""
    from localllm.cli import showing

    showing.run(model, template=template, header=header, offline=offline, as_json=json)


def verify(
    model: SeveralModels = None,
    every: Annotated[bool, typer.Option("--all", help="Every version that is here.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the short test inference.")
    ] = False,
    sha256: Sha256 = None,
    md5: Md5 = None,
    json: Json = False,
) -> None:
    """Check that models are intact, and answer.

    By their digests, their structure, their quantization and a short test inference. Digests of a
    loose file are those in files beside it (x.gguf.sha256, SHA256SUMS). Leaves with 6 when a check
    fails.
    """
    from localllm.cli import pull, verifying

    claims = pull.claims_of(sha256, md5)
    verifying.run(model or [], every=every, quick=quick, claims=claims, as_json=json)


def rm(
    model: Annotated[
        list[str],
        typer.Argument(help="org/repo:Q4_K_M, or MODEL@REVISION for one version of it."),
    ],
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Not only the version in use.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove models, as far as nothing else needs their files.

    Without a revision it is the version in use that goes; the name then means the one before.
    """
    from localllm.cli import removing

    removing.remove(model, all_versions=all_versions, dry_run=dry_run, yes=yes, as_json=json)


def use(
    name: Annotated[str, typer.Argument(help="org/repo:Q4_K_M@REVISION.")],
    json: Json = False,
) -> None:
    """Make a name mean another of its versions.

    Without @REVISION the one that it meant before.
    """
    from localllm.cli import removing

    removing.use(name, as_json=json)


def prune(dry_run: DryRun = False, yes: Yes = False, json: Json = False) -> None:
    """Remove old versions, and what is left of downloads.

    Each name keeps the version that it means, and the one before. A download that was given up a
    week ago goes, and so does a file of ours that no model claims.
    """
    from localllm.cli import removing

    removing.prune(dry_run=dry_run, yes=yes, as_json=json)


COMMANDS = (
    recommend,
    pull,
    list_models,
    show,
    verify,
    rm,
    use,
    prune,
)
