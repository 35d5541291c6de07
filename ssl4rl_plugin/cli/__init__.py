"""The command line, `ssl4rl`.

Exit codes: 0 done, 1 a check failed, 2 bad usage or bad input, 141 nobody reads the output. This file holds the commands'
names, options and help. A command imports its implementation when it runs, so that `ssl4rl --help` stays fast.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

BAD_INPUT = 2
PIPE_CLOSED = 128 + 13
"""Exit code if the reader of the output is gone: that of a program which SIGPIPE ended, in a shell."""


class _Commands(TyperGroup):
    """Prints an error that the user can correct as one message, with exit code 2; all others keep their traceback."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Also ends quietly if nobody reads the output any more, as in `ssl4rl tasks | head -1`."""
        piped = _is_pipe(sys.stdout)
        try:
            try:
                return super().main(*args, **extra)
            finally:
                sys.stdout.flush()  # here, since at the end of the process it could only print a warning
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(PIPE_CLOSED) from None
        except SystemExit as end:
            # Rich and Typer end with 1, which means here that a check failed. Rich has put another file in the pipe's place.
            if (
                end.code == 1
                and piped
                and (not _is_pipe(sys.stdout) or type(sys.stdout).__name__ == "PacifyFlushWrapper")
            ):
                raise SystemExit(PIPE_CLOSED) from None
            raise

    def invoke(self, ctx: Any) -> Any:
        # As in core.safe_path, whose import would make help slow: nothing is imported from the current folder, here or in
        # the processes that libraries start.
        sys.path[:] = [place for place in sys.path if place]
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            return super().invoke(ctx)
        except Exception as error:
            from ssl4rl_plugin.core.errors import UserError  # here, so that help does not import NumPy

            if isinstance(error, UserError):
                message = str(error)
            elif isinstance(error, OSError) and error.filename is not None:  # a file or folder that the user named
                message = f"{error.filename}: {error.strerror}"
            else:
                raise
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(f"[bold red]ssl4rl:[/] {_plain(message)}", highlight=False)
        raise typer.Exit(BAD_INPUT)


def _is_pipe(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # a stream of a test or a notebook
        return False


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

SOURCE_HELP = "Name of the source (`ssl4rl sources`). Default: chosen by the path and the task."
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


@app.command()
def tasks(as_json: AsJson = False) -> None:
    """List the pretext tasks with their levels, from this package and from others."""
    from ssl4rl_plugin.cli import catalogue

    catalogue.show_tasks(as_json)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes, for `recipe=NAME` on verl's command line."""
    from ssl4rl_plugin.cli import catalogue

    catalogue.show_recipes(as_json)


@app.command()
def sources(as_json: AsJson = False) -> None:
    """List the sources of images, videos and graphs."""
    from ssl4rl_plugin.cli import catalogue

    catalogue.show_sources(as_json)


@app.command()
def index(
    what: Annotated[str, typer.Argument(metavar="SOURCE_OR_PATH", help="Name of a source, or a folder or file.")],
    path: Annotated[Path | None, typer.Option(help="Path of a named source's files.")] = None,
    source: Annotated[str | None, typer.Option(help="Source that reads the path. Default: chosen by the path.")] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the source.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download a named source's files first, to --path or the cache.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Manifest to write (.parquet). Default: in the cache.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one for each core, at most 8.")
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share held out, if the source has no splits.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check and measure every image once. Counts bad images by reason, and keeps duplicates in one split.

    A later run reads only changed files. An interrupted run resumes.
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
    out: Annotated[Path, typer.Option(help="File to write, .html or .png.")] = Path("preview.html"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
) -> None:
    """Write a contact sheet of samples: pictures, prompt, right answer, parameters."""
    from ssl4rl_plugin.cli.sheet import write_preview

    _done(write_preview(arms, path, count, out, seed, progress=sys.stderr.isatty(), source=source))


@app.command()
def audit(
    arms: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK[:LEVEL]...]", help="rotation, jigsaw:3x3, altered_patch:*")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every level of every task.")] = False,
    path: Annotated[Path | None, typer.Option(help="Folder, or .tsv file. Default: built-in samples.")] = None,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=80, max=100_000, help="Samples of each level.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and the halves.")] = 0,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("audit.html"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one for each core, at most 8.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no blind guesser beats chance: sizes, bytes, borders, sharpness, colours, constant answers.

    Exit code 1 if something other than the content of the pictures gives the answer away, or a picture is in both splits.
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
    task: Annotated[list[str], typer.Option("--task", "-t", metavar="TASK[:LEVEL]", help="May be given repeatedly.")],
    out: Annotated[Path, typer.Option(help="Folder to write. The same command resumes.")],
    where: Annotated[
        str | None,
        typer.Argument(metavar="[WHERE]", help="Folder, file, manifest of `ssl4rl index`, or name of a source."),
    ] = None,
    path: Annotated[Path | None, typer.Option(help="Path of a named source's files.")] = None,
    source: Annotated[str | None, typer.Option(help="Name of the source. Default: chosen by the path.")] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the source.")] = None,
    sources: Annotated[
        str | None, typer.Option(help="Several sources, as in ssl4rl.sources: '[{path: A}, {path: B, weight: 2}]'.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Fresh samples of each training image.")] = 1,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of `ssl4rl` in the recipe.")
    ] = None,
    store: Annotated[
        str, typer.Option(help="Pictures in the rows, as files, or made again when read: bytes|path|reference.")
    ] = "bytes",
    picture: Annotated[str, typer.Option("--format", help="jpeg, or png to keep every pixel.")] = "jpeg",
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 90,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows in each file.")] = 512,
    engine: Annotated[str, typer.Option(help="local: processes on this machine. ray: a Ray cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: all cores.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster. Default: RAY_ADDRESS, or this machine.")
    ] = None,
    processor: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Measure prompt lengths for this model.")
    ] = None,
    audit: Annotated[int | None, typer.Option(metavar="N", min=80, help="Audit with N samples of each level.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write samples as parquet files for verl, with a report. An interrupted build resumes.

    The output depends on the seed, not on workers or engine. Exit code 1 if an audit found a leak.
    """
    from ssl4rl_plugin.cli.build import run_build
    from ssl4rl_plugin.cli.options import key_values
    from ssl4rl_plugin.data.shards import Codec

    changes = {"seed": seed, "epochs": epochs, **key_values(change, "--set")}
    if sources is not None:
        changes |= key_values([f"sources={sources}"], "--sources")
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
    other: Annotated[Path, typer.Argument(metavar="B", help="Another one, e.g. a benchmark.")],
    source: Annotated[str | None, typer.Option(help="Name of A's source. Default: chosen by the path.")] = None,
    other_source: Annotated[str | None, typer.Option(help="Name of B's source. Default: chosen by the path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find images that two data sets share: equal files, and re-encoded, scaled or slightly cropped copies.

    Exit code 1 if there are any.
    """
    from ssl4rl_plugin.cli.overlap import run_overlap

    raise typer.Exit(run_overlap(one, other, source, other_source, as_json))


export = typer.Typer(no_args_is_help=True, help="Export for other evaluation tools.")
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
        list[str] | None, typer.Option(metavar="NAME", help="mmbench, ..., or a set of VLMEvalKit.")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="Images for the tasks. Default: built-in samples.")] = None,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Questions of each task and level.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share held out. The questions are made from it.")
    ] = 0.1,
    answer_format: Annotated[
        str, typer.Option(help="think_answer, answer_only or boxed, as in training.")
    ] = "think_answer",
    model_class: Annotated[
        str | None, typer.Option("--class", help="VLMEvalKit's class for the model. Default: chosen by the model.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of a response.")] = 2048,
    as_json: AsJson = False,
) -> None:
    """Write multiple-choice sets and a config for an unmodified VLMEvalKit, and print the command to start it."""
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
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="Repeat the validation of this run.")] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL_OR_DIR", help="Compare with this model, or with its evaluation.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. The same command resumes. Default: evaluations/MODEL.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each benchmark.")] = None,
    circular: Annotated[
        bool, typer.Option("--circular", help="Ask questions in every order of their options (MMBench's CircularEval).")
    ] = False,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples of each level. Default: 128.")] = None,
    path: Annotated[Path | None, typer.Option(help="Images for the tasks. Default: built-in samples.")] = None,
    source: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of `ssl4rl` in the recipe.")
    ] = None,
    answer_format: Annotated[str | None, typer.Option(help="think_answer (default), answer_only or boxed.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the samples, and of sampled answers.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Default: 0, greedy decoding.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Default: 1.")] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="Answers to each question.")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Default: 4096.")] = None,
    max_response_tokens: Annotated[int | None, typer.Option(min=1, help="Default: 2048.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto (that of the model), bfloat16, float16 or float32.")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(min=1, help="GPUs for each engine.")] = None,
    engines: Annotated[int | None, typer.Option(min=1, help="Number of engines. Default: one for each GPU.")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on benchmarks and pretext tasks with vLLM, scored as in training, and compare it with another one.

    The same command resumes an interrupted evaluation. A checkpoint of verl is merged first, with verl's model merger.
    """
    from ssl4rl_plugin.analysis.evaluation.evaluation_set import EvaluationRequest
    from ssl4rl_plugin.cli.evaluate import benchmark, run_evaluate
    from ssl4rl_plugin.cli.options import key_values

    request = EvaluationRequest(
        benchmarks=[benchmark(text) for text in bench or ()], tasks=task or (), limit=limit, circular=circular,
        samples=samples, answer_format=answer_format, seed=seed, temperature=temperature, top_p=top_p, n=n,
        max_prompt_tokens=max_prompt_tokens, max_response_tokens=max_response_tokens, dtype=dtype,
        tensor_parallel=tensor_parallel, engines=engines,
    )  # fmt: skip
    run_evaluate(
        model, request, run=run, base=base, out=out, path=path, source=source, changes=key_values(change, "--set"),
        as_json=as_json,
    )  # fmt: skip


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or verl's metrics (.jsonl) or output (.log).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write. Default: report.html in RUN; for several runs, in this folder."),
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
    question: Annotated[str, typer.Argument(help="Question, with the answer format of the model's training.")],
    against: Annotated[str | None, typer.Option(metavar="MODEL", help="Another model, drawn beside it.")] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Response to use. Default: the model's own, by greedy decoding.")
    ] = None,
    layer: Annotated[
        str, typer.Option(metavar="N|all", help="0-based; -1 is the last. all: mean over layers.")
    ] = "all",
    head: Annotated[str, typer.Option(metavar="N|mean", help="0-based. mean: mean over heads.")] = "mean",
    method: Annotated[
        str,
        typer.Option(
            metavar="raw|rollout", help="rollout: attention through all layers up to --layer, with residuals."
        ),
    ] = "raw",
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Also print the attention in this box, given in pixels."),
    ] = None,
    whole_response: Annotated[
        bool,
        typer.Option("--whole-response", help="All tokens of the response. Default: its last answer block."),
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of the response.")] = 512,
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
        typer.Argument(metavar="[KEY=VALUE]...", help="With --recipe: overrides as on verl's command line."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Also check that verl finds a processor for this model.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Check this recipe: does it compose, pass verl's checks, fit the GPUs?")
    ] = None,
    elsewhere: Annotated[
        bool,
        typer.Option(help="With --recipe: the run starts on another machine; leave this one's GPUs and files out."),
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="With --recipe: run its whole path with a tiny model, without a GPU.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --rehearse: folder to write. Default: a new one in runs/rehearsals.")
    ] = None,
    until: Annotated[str, typer.Option(hidden=True, help="With --rehearse: the last phase.")] = "evaluate",
    as_json: AsJson = False,
) -> None:
    """Check whether this machine can train, or with --recipe whether a recipe can; print how to fix problems."""
    from ssl4rl_plugin.core.errors import UserError

    if rehearse and recipe is None:
        raise UserError("--rehearse needs --recipe: name the recipe to rehearse")
    if out is not None and not rehearse:
        raise UserError("--out is the folder of a rehearsal: add --rehearse")
    if elsewhere and (rehearse or recipe is None):
        raise UserError("--elsewhere is for --recipe without --rehearse, which runs on this machine")
    if rehearse and recipe is not None:
        from ssl4rl_plugin.demo.rehearsal import main as rehearse_recipe

        own = [f"actor_rollout_ref.model.path={model}"] if model else []
        raise typer.Exit(rehearse_recipe(recipe, [*(overrides or []), *own], out, until, as_json))
    if recipe is not None:
        from ssl4rl_plugin.cli.recipe_check import show_recipe

        own = [f"actor_rollout_ref.model.path={model}"] if model else []
        raise typer.Exit(show_recipe(recipe, [*(overrides or []), *own], as_json, elsewhere))
    if overrides:
        raise UserError(f"{overrides[0]!r} changes a recipe: name the recipe with --recipe")
    from ssl4rl_plugin.cli.checks import show_checks

    raise typer.Exit(show_checks(model, as_json))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("runs/demo"),
    learn: Annotated[bool, typer.Option("--learn", help="Train until the model has visibly learnt.")] = False,
    photos: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Folder of photographs to learn from. Default: the recipe's, which come with scikit-image.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="cpu_demo; cpu_learn, as --learn; cpu_one_task, cpu_curriculum, cpu_videos; graph_cpu_demo, graph_cpu_learn"
        ),
    ] = "cpu_demo",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps. Default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the model, the samples and the training.")] = 0,
    resume: Annotated[
        bool, typer.Option(help="Resume from the last checkpoint in the folder, if there is one.")
    ] = True,
) -> None:
    """Train a tiny vision-language model with verl on this machine; needs no GPU."""
    from ssl4rl_plugin.demo.run import main, photographs

    own = photographs(photos) if photos else ()
    raise typer.Exit(main(out, "cpu_learn" if learn else recipe, steps, seed, resume, own))


def _done(path: Path) -> None:
    """Print the path of a written file; on a terminal also its size."""
    size = path.stat().st_size
    print(f"{path.resolve()} ({size / 2**20:.1f} MiB)" if sys.stdout.isatty() else path.resolve())
