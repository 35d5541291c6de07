"""The command line, `ssl4rl`: what there is, what it looks like, whether it will run, and how it went.

Exit codes: 0 done, 1 a check failed, 2 bad usage or bad input. This file holds the commands' names, options and help;
what they do is imported when they run, so that `ssl4rl --help` stays fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

BAD_INPUT = 2


class _Commands(TyperGroup):
    """Turns what a user can put right into one message and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from ssl4rl_plugin.core.errors import UserError  # here, so that help does not import NumPy

            # Of the system's errors only those about a file or folder, which the user named.
            if not (isinstance(error, UserError) or (isinstance(error, OSError) and error.filename is not None)):
                raise
            message = str(error)
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(f"[bold red]ssl4rl:[/] {_plain(message)}", highlight=False)
        raise typer.Exit(BAD_INPUT)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


app = typer.Typer(
    cls=_Commands,
    help="Self-supervised pretext tasks as verifiable rewards for reinforcement learning with verl.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SOURCE_HELP = "Name of the source (`ssl4rl sources`). Default: told from the path, and from what each task needs."
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


@app.command()
def tasks(as_json: AsJson = False) -> None:
    """List the pretext tasks with their levels, from this package and from others."""
    from ssl4rl_plugin.cli import catalogue

    catalogue.show_tasks(as_json)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes: what `recipe=NAME` can be on verl's command line."""
    from ssl4rl_plugin.cli import catalogue

    catalogue.show_recipes(as_json)


@app.command()
def sources(as_json: AsJson = False) -> None:
    """List the sources that images can come from."""
    from ssl4rl_plugin.cli import catalogue

    catalogue.show_sources(as_json)


@app.command()
def index(
    what: Annotated[str, typer.Argument(metavar="SOURCE_OR_PATH", help="Name of a source, or a folder or file.")],
    path: Annotated[Path | None, typer.Option(help="Where the files of a named source are.")] = None,
    source: Annotated[str | None, typer.Option(help="Source that reads the path. Default: told from it.")] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the source.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a named source's files first: into --path, or the cache.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Manifest to write (.parquet). Default: in the cache.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Default: one for each core, at most 8.")] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share held out, where the source has no splits of its own.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Other images held out for another seed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check and measure every image once; bad ones are left out and counted, copies kept on one side of the split.

    Run again it reads only what changed; interrupted, it goes on where it stopped.
    """
    from ssl4rl_plugin.cli.index import run_index
    from ssl4rl_plugin.cli.options import key_values

    run_index(
        what, path, source, key_values(option, "--option"), download=download, out=out, workers=workers,
        val_fraction=val_fraction, seed=seed, as_json=as_json,
    )  # fmt: skip


@app.command()
def preview(
    arms: Annotated[list[str], typer.Argument(metavar="TASK[:LEVEL]...", help="rotation, jigsaw:3x3, altered_patch:*")],
    path: Annotated[
        Path | None, typer.Option(help="Folder of images, .tsv file, or file with a graph. Default: built-in samples.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=200, help="Samples of each level.")] = 4,
    out: Annotated[Path, typer.Option(help="File to write; .html or .png.")] = Path("preview.html"),
    seed: Annotated[int, typer.Option(min=0, help="Other samples for another seed.")] = 0,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
) -> None:
    """Draw samples of tasks as a contact sheet: pictures, prompt, right answer, parameters."""
    from ssl4rl_plugin.cli.sheet import write_preview

    _done(write_preview(arms, path, count, out, seed, progress=sys.stderr.isatty(), source=source))


@app.command()
def audit(
    arms: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK[:LEVEL]...]", help="rotation, jigsaw:3x3, altered_patch:*")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every level of every task.")] = False,
    path: Annotated[Path | None, typer.Option(help="Folder, or a .tsv file. Default: the built-in samples.")] = None,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=80, max=100_000, help="Samples of each level.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Other samples and halves for another seed.")] = 0,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("audit.html"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one for each core, at most 8.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no blind guesser can answer: sizes, bytes, borders, sharpness, colours, constant answers.

    Exit code 1 if anything but what the pictures show tells the answer, or if a picture is in both splits.
    """
    from ssl4rl_plugin.cli.audit import run_audit

    raise typer.Exit(run_audit(arms or [], everything, path, source, count, seed, out, workers, as_json))


@app.command()
def score(
    task: Annotated[str, typer.Argument(metavar="TASK[:LEVEL]", help="rotation, jigsaw:3x3")],
    text: Annotated[str, typer.Argument(help="What the model wrote: a whole response, or the answer alone.")],
    truth: Annotated[str, typer.Option(help="The right answer, as JSON or as a model would write it.")],
    answer_format: Annotated[str, typer.Option(help="think_answer, answer_only or boxed.")] = "think_answer",
    thinking: Annotated[bool, typer.Option("--thinking", help="The chat template opens the thought.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the reward reads a text: normalised, parsed value, similarity, score, and why. Exit code 1 if not right.

    Example: ssl4rl score rotation --truth 90 "270 degrees clockwise"
    """
    from ssl4rl_plugin.cli.score import run_score

    raise typer.Exit(run_score(task, truth, text, answer_format, thinking, as_json))


@app.command()
def build(
    where: Annotated[
        str, typer.Argument(metavar="WHERE", help="Folder, file, manifest made by `ssl4rl index`, or name of a source.")
    ],
    task: Annotated[list[str], typer.Option("--task", "-t", metavar="TASK[:LEVEL]", help="May be given repeatedly.")],
    out: Annotated[Path, typer.Option(help="Folder to write; the same command again goes on with what is in it.")],
    path: Annotated[Path | None, typer.Option(help="Where a named source's files are.")] = None,
    source: Annotated[str | None, typer.Option(help="Name of the source. Default: told from the path.")] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the source.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other samples for another seed.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="How often each training image is used, each time anew.")] = 1,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of `ssl4rl` in a recipe.")
    ] = None,
    store: Annotated[
        str, typer.Option(help="Pictures in the rows, beside them, or made again: bytes|path|reference.")
    ] = "bytes",
    picture: Annotated[str, typer.Option("--format", help="jpeg, or png to keep every pixel.")] = "jpeg",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG.")] = 90,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows in each file.")] = 512,
    engine: Annotated[str, typer.Option(help="local: processes of this machine. ray: a Ray cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: all cores.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster. Default: RAY_ADDRESS, or this machine.")
    ] = None,
    processor: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Measure prompt lengths for this model.")
    ] = None,
    audit: Annotated[int | None, typer.Option(metavar="N", min=80, help="Audit with N samples of each level.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write samples as parquet files that verl trains on, with a report; interrupted, it goes on where it stopped.

    The same seed gives the same bytes, whatever the workers and the engine. Exit code 1 if an audit found a leak.
    """
    from ssl4rl_plugin.cli.build import run_build
    from ssl4rl_plugin.cli.options import key_values
    from ssl4rl_plugin.data.shards import Codec

    changes = {"seed": seed, "epochs": epochs, **key_values(change, "--set")}
    raise typer.Exit(
        run_build(
            where, task, out, path=path, source=source, options=key_values(option, "--option"), changes=changes, store=store,
            codec=Codec(picture, quality), shard_rows=shard_rows, engine=engine, workers=workers, address=address,
            processor=processor, audit_count=audit, as_json=as_json,
        )
    )  # fmt: skip


@app.command()
def overlap(
    one: Annotated[Path, typer.Argument(metavar="A", help="Folder, file, or manifest.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another one, say a benchmark.")],
    source: Annotated[str | None, typer.Option(help="Name of A's source. Default: told from the path.")] = None,
    other_source: Annotated[str | None, typer.Option(help="Name of B's source. Default: told from the path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find images that two data sets share: equal files, and copies encoded, scaled or slightly cropped anew.

    Exit code 1 if there is any.
    """
    from ssl4rl_plugin.cli.overlap import run_overlap

    raise typer.Exit(run_overlap(one, other, source, other_source, as_json))


export = typer.Typer(no_args_is_help=True, help="Write what other tools evaluate.")
app.add_typer(export, name="export")


@export.command()
def vlmevalkit(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder in Hugging Face's layout, or a name on the Hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: LMUData/ with the sets, and config.json.")],
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", metavar="TASK[:LEVEL]", help="May be given repeatedly.")
    ] = None,
    bench: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="mmbench, ..., or a set of VLMEvalKit's own.")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="Images for the tasks. Default: built-in samples.")] = None,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Questions of each task and level.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Other samples for another seed.")] = 0,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share held out, of which the questions are made.")
    ] = 0.1,
    answer_format: Annotated[
        str, typer.Option(help="think_answer, answer_only or boxed, as in training.")
    ] = "think_answer",
    model_class: Annotated[
        str | None, typer.Option("--class", help="VLMEvalKit's class for the model. Default: told from it.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of a response.")] = 2048,
    as_json: AsJson = False,
) -> None:
    """Pretext tasks as multiple-choice sets, and a config, for an unmodified VLMEvalKit; prints how to start it."""
    from ssl4rl_plugin.cli.export import export_vlmevalkit

    raise typer.Exit(
        export_vlmevalkit(
            model, task or [], bench or [], out, path=path, source=source, count=count, seed=seed,
            val_fraction=val_fraction, form=answer_format, base=model_class, max_new_tokens=max_new_tokens, as_json=as_json,
        )
    )  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hugging Face name or folder, or a checkpoint of verl.")
    ],
    bench: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="Benchmark; may be given repeatedly.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", metavar="TASK[:LEVEL]", help="Pretext task, as a benchmark.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Ask what this run validates on, as it asks it.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL_OR_DIR", help="Compare with this model, or with its evaluation.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; the same command again goes on. Default: evaluations/MODEL.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each benchmark.")] = None,
    circular: Annotated[
        bool, typer.Option("--circular", help="Ask questions in every order of their options (MMBench's CircularEval).")
    ] = False,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples of each level. Default: 128.")] = None,
    path: Annotated[Path | None, typer.Option(help="Where the images of tasks are. Default: built-in samples.")] = None,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of `ssl4rl` in a recipe.")
    ] = None,
    answer_format: Annotated[str | None, typer.Option(help="think_answer (default), answer_only or boxed.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the samples, and of answers that are drawn.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Default: 0, the likeliest answer.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="Answers to each question.")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Default: 4096.")] = None,
    max_response_tokens: Annotated[int | None, typer.Option(min=1, help="Default: 2048.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto (the model's own), bfloat16, float16 or float32.")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(min=1, help="GPUs of one engine.")] = None,
    engines: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one for each GPU.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put benchmarks and pretext tasks to a model with vLLM, scored as in training, and compare it with another one.

    Interrupted, the same command goes on. A checkpoint of verl is merged first, with verl's own model merger.
    """
    from ssl4rl_plugin.analysis.evaluation.evaluation_set import EvaluationRequest
    from ssl4rl_plugin.cli.evaluate import benchmark, run_evaluate
    from ssl4rl_plugin.cli.options import key_values

    wishes = EvaluationRequest(
        benchmarks=[benchmark(text) for text in bench or ()], tasks=task or (), limit=limit, circular=circular,
        samples=samples, answer_format=answer_format, seed=seed, temperature=temperature, top_p=top_p, n=n,
        max_prompt_tokens=max_prompt_tokens, max_response_tokens=max_response_tokens, dtype=dtype,
        tensor_parallel=tensor_parallel, engines=engines,
    )  # fmt: skip
    run_evaluate(
        model, wishes, run=run, base=base, out=out, path=path, source=source, changes=key_values(change, "--set"),
        as_json=as_json,
    )  # fmt: skip


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or verl's metrics (.jsonl) or output (.log).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write. Default: report.html in RUN; for several, here.")
    ] = None,
) -> None:
    """Write one HTML page about a run, or several side by side: accuracy against chance, curves, answers, settings."""
    from rich.console import Console

    from ssl4rl_plugin.analysis.report import write_report

    with Console(stderr=True).status("reading the run" if len(runs) == 1 else "reading the runs"):
        page = write_report(runs, out)
    _done(page)


@app.command()
def attention(
    model: Annotated[str, typer.Argument(help="Folder or name of a vision-language model, or verl's checkpoint.")],
    image: Annotated[Path, typer.Argument(help="Picture.")],
    question: Annotated[str, typer.Argument(help="What to ask, with the answer format that the model was trained on.")],
    against: Annotated[str | None, typer.Option(metavar="MODEL", help="Another model, drawn beside it.")] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Response to take. Default: what the model writes, greedily.")
    ] = None,
    layer: Annotated[str, typer.Option(metavar="N|all", help="0-based; -1 is the last. all: their mean.")] = "all",
    head: Annotated[str, typer.Option(metavar="N|mean", help="0-based; mean: of all heads.")] = "mean",
    method: Annotated[
        str, typer.Option(metavar="raw|rollout", help="rollout: through all layers up to --layer, residuals included.")
    ] = "raw",
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="In pixels of the picture: how much falls into it?")
    ] = None,
    whole_response: Annotated[
        bool, typer.Option("--whole-response", help="All of its tokens. Default: those of its last answer block.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of the response at most.")] = 512,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("attention.png"),
    as_json: AsJson = False,
) -> None:
    """Show where a model looks while it answers: attention from the answer's tokens to the picture."""
    from ssl4rl_plugin.cli.attention import run_attention

    page = run_attention(
        [model, against] if against else [model], image, question, answer=answer, layer=layer, head=head, method=method,
        box=box, whole_response=whole_response, max_tokens=max_tokens, out=out, as_json=as_json,
    )  # fmt: skip
    if not as_json:
        _done(page)


@app.command()
def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="With --recipe: what follows the recipe on verl's command line."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Also check that verl finds a processor for this model.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Check this recipe instead: does it compose, pass verl's checks, fit the GPUs?")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check whether this machine, or with --recipe whether a recipe can train, and say what to do where not."""
    if recipe is not None:
        from ssl4rl_plugin.cli.recipe_check import show_recipe

        own = [f"actor_rollout_ref.model.path={model}"] if model else []
        raise typer.Exit(show_recipe(recipe, [*(overrides or []), *own], as_json))
    if overrides:
        from ssl4rl_plugin.core.errors import UserError

        raise UserError(f"{overrides[0]!r} changes a recipe: say which one with --recipe")
    from ssl4rl_plugin.cli.checks import show_checks

    raise typer.Exit(show_checks(model, as_json))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("runs/demo"),
    learn: Annotated[bool, typer.Option("--learn", help="Train until the model has visibly learnt.")] = False,
    recipe: Annotated[
        str,
        typer.Option(
            help="cpu_demo; cpu_learn, as --learn; cpu_curriculum; cpu_videos; graph_cpu_demo, graph_cpu_learn."
        ),
    ] = "cpu_demo",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps. Default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the model, the samples and the training.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the folder, if there is one.")] = True,
) -> None:
    """Train a tiny vision-language model with verl on this machine; needs no GPU."""
    from ssl4rl_plugin.demo.run import main

    raise typer.Exit(main(out, "cpu_learn" if learn else recipe, steps, seed, resume))


def _done(path: Path) -> None:
    """Say what was written: the path alone on stdout, for scripts."""
    size = path.stat().st_size
    print(f"{path.resolve()} ({size / 2**20:.1f} MiB)" if sys.stdout.isatty() else path.resolve())
