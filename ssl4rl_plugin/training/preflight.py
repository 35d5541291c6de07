"""Checks on the driver, before Ray starts.

The base recipe names `Preflight` under `hydra.callbacks`, Hydra's hook for code that runs when a job starts. Mistakes that
would fail minutes later inside a Ray worker fail here at once, with one readable message and exit code 2.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.training.prompt_preflight import PreflightError, check_prompt_lengths, check_shown
from ssl4rl_plugin.training.settings import RewardSection

if TYPE_CHECKING:
    from ssl4rl_plugin.data.rows import OnlineRows
    from ssl4rl_plugin.training.settings import Settings
    from ssl4rl_plugin.training.stored_rows import StoredRows

LISTED = 10
"""Pairs of equal images that a message names."""
SAMPLER = ("pkg://ssl4rl_plugin.training.verl.sampler", "build_sampler")
"""What a curriculum needs in trainer.v1.sampler.custom_sampler: (path, name)."""
CALLBACK = "ssl4rl_plugin.training.verl.sampler.SaveJournal"
"""What a curriculum needs in trainer.checkpoint_callback_class."""


class Preflight(Callback):
    """Hydra callback of every ssl4rl recipe. Ends the process if the run cannot work.

    A UserError ends with one message and exit code 2, any other exception with its traceback and exit code 1.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls this on the driver, with the composed config, once for each job (of a sweep, too)."""
        try:
            check(config)
        except Exception as error:
            # Hydra turns an Exception of a callback into a warning, and continues; it does not catch SystemExit.
            if not isinstance(error, UserError):
                traceback.print_exc()
                print("\nssl4rl: cannot start: the check before the run failed with the error above", file=sys.stderr)
                raise SystemExit(1) from None
            print(f"\nssl4rl: cannot start: {error}", file=sys.stderr, flush=True)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("\nssl4rl: interrupted in the check before the run", file=sys.stderr)
            raise SystemExit(130) from None


def check(config: DictConfig, start: bool = True) -> None:
    """Check all of a run that can be checked before Ray starts. Indexes the images if they have no index yet.

    Args:
        config: verl's config, composed, with the `ssl4rl` section.
        start: False leaves out what the run needs of the machine that starts it (`start_checks`).

    Raises UserError (SettingsError, SourceError, SampleError, PreflightError, ...) with the remedy.
    """
    # Imported here, because Hydra imports this module whenever it composes a config.
    from ssl4rl_plugin.training.settings import Settings
    from ssl4rl_plugin.training.start_checks import check_start, disk_findings, report, starts_ray_here

    if not names_images(config.ssl4rl):
        raise PreflightError(
            "ssl4rl.source.path is not set: say where the images are, e.g. ssl4rl.source.path=/data/photos "
            "(a folder of images, or a TSV with a base64 `image` column and ssl4rl.source.name=tsv); ssl4rl.sources "
            "names several"
        )
    settings = Settings.from_config(config.ssl4rl)
    check_data_keys(config)
    if start:
        check_start(config)  # before the images, whose index may take long
    train = check_built(settings, Path(settings.data)) if settings.data is not None else check_online(settings)
    batch = config.data.get("gen_batch_size") or config.data.train_batch_size
    if len(train) < batch:
        made = "" if settings.data else f" of {settings.epochs} epoch(s)"
        raise PreflightError(
            f"the training images make {len(train)} samples{made}, fewer than one batch of {batch}: lower "
            "data.train_batch_size, raise ssl4rl.epochs, or add images"
        )
    train[0]
    check_curriculum(config, settings, train)
    check_overlap(settings)
    check_reward(config, settings.answer_format.name)
    check_batches(config)
    check_model(
        str(config.actor_rollout_ref.model.path), any(row.images or row.videos for row in train.held_out().probes())
    )
    check_shown(config, settings, train, check_prompt_lengths(config, settings, train))
    if start and starts_ray_here(config):
        report(disk_findings(config, steps=len(train) // batch * int(config.trainer.total_epochs)))


def names_images(section: Any) -> bool:
    """Whether the `ssl4rl` section of a config says where the images are, or needs no path for them."""
    return bool(section.get("data") or section.get("sources") or not OmegaConf.is_missing(section.source, "path"))


def check_online(settings: Settings) -> OnlineRows:
    """The training rows of a run that makes its samples on the fly. Prints the number of images left out, by reason."""
    from ssl4rl_plugin.data.indexing import load_manifest
    from ssl4rl_plugin.data.mixture import Mixture
    from ssl4rl_plugin.data.pools import unused
    from ssl4rl_plugin.data.rows import OnlineRows
    from ssl4rl_plugin.data.samples import SampleStream
    from ssl4rl_plugin.training.source_notes import shows_evaluated_texts, source_notes

    loaded = load_manifest(settings, progress=sys.stderr.isatty())
    for note in source_notes(loaded):
        print(f"ssl4rl: {note}", file=sys.stderr)
    if (remedy := shows_evaluated_texts(loaded)) is not None and not settings.transductive:
        raise PreflightError(
            "training prompts would show the texts of nodes that are evaluated (never their labels, and no held-out edge): "
            f"set ssl4rl.transductive=true if that is intended, as in the paper, or leave those nodes out with {remedy}"
        )
    if isinstance(loaded, Mixture) and (problem := unused(settings.arms, loaded)) is not None:
        raise PreflightError(problem)
    SampleStream(settings, loaded, "val")  # raises if the validation split does not fit
    return OnlineRows(SampleStream(settings, loaded, "train"))


def check_built(settings: Settings, folder: Path) -> StoredRows:
    """The training rows of a run on a folder that `ssl4rl build` wrote."""
    from ssl4rl_plugin.training.stored_rows import StoredRows

    train = StoredRows(folder, "train")
    built = train.settings
    if built.answer_format.name != settings.answer_format.name:
        raise PreflightError(
            f"the prompts in {folder} ask for the answer format {built.answer_format.name!r}, and ssl4rl.answer_format is "
            f"{settings.answer_format.name!r}: set ssl4rl.answer_format={built.answer_format.name}"
        )
    if built.system_prompt != settings.system_prompt:
        raise PreflightError(
            f"{folder} was built with system prompt {built.system_prompt!r}, and ssl4rl.system_prompt is "
            f"{settings.system_prompt!r}: set it to the same, or build again"
        )
    if settings.fixed_corruptions and not built.fixed_corruptions and built.epochs > 1:
        raise PreflightError(
            f"the rows in {folder} have new corruptions in each of {built.epochs} epochs, and ssl4rl.fixed_corruptions is "
            "true: build with `--set fixed_corruptions=true`, or set ssl4rl.fixed_corruptions=false"
        )
    if not len(StoredRows(folder, "val")) + len(StoredRows(folder, "questions")):
        raise PreflightError(f"{folder} holds no validation rows: build it with `--set source.val_fraction=0.1`")
    return train


def check_curriculum(config: DictConfig, settings: Settings, train: OnlineRows | StoredRows) -> None:
    """Raise PreflightError or PolicyError if the curriculum cannot work; print a note if part of it has no effect."""
    from ssl4rl_plugin.training.curriculum.director import Director
    from ssl4rl_plugin.training.settings import curriculum_arms
    from ssl4rl_plugin.training.stored_rows import StoredRows

    if settings.curriculum is None:
        return
    sampler = config.trainer.v1.sampler.custom_sampler
    if (sampler.path, sampler.name) != SAMPLER:
        raise PreflightError(
            f"ssl4rl.curriculum needs the sampler of this package, and trainer.v1.sampler.custom_sampler is {sampler.path}: "
            "leave it as the recipes set it, or set ssl4rl.curriculum=null"
        )
    arms = curriculum_arms(train.arms)
    Director(settings.curriculum, arms, int(config.actor_rollout_ref.rollout.n), settings.seed).probabilities()
    if isinstance(train, StoredRows):
        for number in range(len(arms)):
            train.of_arm(0, number, 0)  # raises if the arm has no rows
    notes = []
    if len(arms) == 1:
        notes.append(f"it has one arm only, {arms[0].key}, and nothing to choose")
    if (
        settings.curriculum.balance
        and config.algorithm.adv_estimator == "grpo"
        and config.algorithm.norm_adv_by_std_in_grpo
    ):
        notes.append(
            "`balance` changes nothing, since GRPO divides by each group's standard deviation (norm_adv_by_std_in_grpo)"
        )
    if config.trainer.checkpoint_callback_class != CALLBACK:
        notes.append(
            f"checkpoints will not hold its journal, since trainer.checkpoint_callback_class is not {CALLBACK} (a resumed "
            "run reads the one in trainer.default_local_dir)"
        )
    for note in notes:
        print(f"ssl4rl: curriculum: {note}", file=sys.stderr)


def check_overlap(settings: Settings) -> None:
    """Raise PreflightError if training images are also images of a benchmark, unless the run is transductive."""
    from ssl4rl_plugin.data.build_plan import read_plan
    from ssl4rl_plugin.data.graphs import GraphManifest
    from ssl4rl_plugin.data.indexing import load_manifest
    from ssl4rl_plugin.data.mixture import parts_of
    from ssl4rl_plugin.data.overlap import overlap
    from ssl4rl_plugin.training.run_rows import benchmark_rows
    from ssl4rl_plugin.training.stored_rows import built_manifest

    if not settings.benchmarks:
        return
    folder = Path(settings.data) if settings.data is not None else None
    loaded = load_manifest(settings) if folder is None else built_manifest(read_plan(folder), folder)
    # A graph has no pictures that a benchmark could share.
    pictures = [(label, one) for label, one in parts_of(loaded) if not isinstance(one, GraphManifest)]
    for rows in benchmark_rows(settings) if pictures else ():
        name = rows.manifest.source.name
        shared = [
            replace(pair, one=f"{label}: {pair.one}") if label else pair
            for label, manifest in pictures
            for pair in overlap(manifest, rows.manifest, splits=("train",))
        ]
        if not shared:
            continue
        what = f"{len(shared)} training images are also images of benchmark {name!r}"
        if settings.transductive:
            print(f"ssl4rl: {what} (transductive)", file=sys.stderr)
            continue
        listed = "\n  ".join(f"{pair.one} shows the same as {pair.other}" for pair in shared[:LISTED])
        more = f"\n  and {len(shared) - LISTED} more (`ssl4rl overlap` lists all)" if len(shared) > LISTED else ""
        raise PreflightError(
            f"{what}, which is validated on:\n  {listed}{more}\nTake them out, or set ssl4rl.transductive=true if that "
            "is intended, as in the paper"
        )


def check_data_keys(config: DictConfig) -> None:
    """Raise PreflightError for verl settings that do not work with this package's dataset or rollouts."""
    built = config.ssl4rl.get("data") is not None
    if not built and config.trainer.get("total_epochs") != 1:
        raise PreflightError(
            f"trainer.total_epochs is {config.trainer.get('total_epochs')}: it would repeat the same samples; keep it at 1 "
            "and set ssl4rl.epochs, which makes new samples in every epoch"
        )
    if not built and config.data.get("shuffle"):
        raise PreflightError("data.shuffle must stay false: the sample stream is shuffled already, epoch by epoch")

    for key in ("train_max_samples", "val_max_samples"):
        if (config.data.get(key) or -1) > 0:
            raise PreflightError(
                f"data.{key} would cut whole tasks off: use ssl4rl.epochs and ssl4rl.val_samples instead"
            )
    by_group = "group_rollout" in str(config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class"))
    if by_group and (config.algorithm.filter_groups.enable or config.actor_rollout_ref.rollout.multi_turn.enable):
        raise PreflightError(
            "group rollouts support neither algorithm.filter_groups nor multi_turn: set "
            "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null"
        )


def check_reward(config: DictConfig, answer_format: str) -> None:
    """Raise PreflightError for unknown reward settings, or another answer format than the prompts ask for."""
    given = config.reward.custom_reward_function.get("reward_kwargs") or {}
    known = {"answer_format", "format_weight", "partial_credit", "partial_credit_by"}
    if unknown := sorted(set(given) - known):
        raise PreflightError(
            f"reward.custom_reward_function.reward_kwargs has unknown {', '.join(map(str, unknown))}; "
            f"known: {', '.join(sorted(known))}"
        )
    RewardSection.read(dict(given), "reward.custom_reward_function.reward_kwargs", PreflightError)
    if given.get("answer_format", "think_answer") != answer_format:
        raise PreflightError(
            f"the reward expects the answer format {given.get('answer_format')!r}, the prompts ask for {answer_format!r}: "
            "set ssl4rl.answer_format only"
        )
    own = config.reward.get("reward_kwargs")
    overlong = own.get("overlong_buffer_cfg") if own else None
    if overlong is not None and overlong.enable and not 0 < overlong.len <= own.max_resp_len:
        raise PreflightError(
            f"reward.reward_kwargs.overlong_buffer_cfg.len is {overlong.len}: choose it from 1 to the longest response, "
            f"{own.max_resp_len}"
        )


def check_batches(config: DictConfig) -> None:
    """Raise PreflightError for batch sizes that do not divide; verl would fail only in its first step."""
    actor, rollout, trainer = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.trainer
    longest = config.data.max_prompt_length + config.data.max_response_length
    for key, dynamic, budget in (
        ("actor.ppo_max_token_len_per_gpu", actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu),
        (
            "rollout.log_prob_max_token_len_per_gpu",
            rollout.log_prob_use_dynamic_bsz,
            rollout.log_prob_max_token_len_per_gpu,
        ),
    ):
        if dynamic and budget < longest:
            raise PreflightError(
                f"actor_rollout_ref.{key} is {budget}, and a row may have {longest} tokens (data.max_prompt_length + "
                f"data.max_response_length): set it to at least {longest}"
            )
    gpus = trainer.n_gpus_per_node * trainer.nnodes // (actor.get("ulysses_sequence_parallel_size") or 1)
    for prompts, key, micro in (
        (
            config.data.train_batch_size,
            "rollout.log_prob_micro_batch_size_per_gpu",
            rollout.log_prob_micro_batch_size_per_gpu,
        ),
        (actor.ppo_mini_batch_size, "actor.ppo_micro_batch_size_per_gpu", actor.ppo_micro_batch_size_per_gpu),
    ):
        dynamic = actor.use_dynamic_bsz if key.startswith("actor") else rollout.log_prob_use_dynamic_bsz
        if micro and not dynamic and (prompts * rollout.n) % (gpus * micro):
            raise PreflightError(
                f"{prompts} prompts x {rollout.n} rollouts do not divide into {gpus} GPU(s) x "
                f"actor_rollout_ref.{key}={micro}: choose a {key.split('.')[1]} that divides {prompts * rollout.n / gpus:g}"
            )


def check_model(path: str, pictures: bool = False) -> None:
    """Raise PreflightError if the model's files are wrong, or if verl finds no processor for the pictures.

    Args:
        path: `actor_rollout_ref.model.path`. A model that is only on the hub is not looked at.
        pictures: the prompts show pictures or videos.
    """
    from ssl4rl_plugin.training import model_files

    model = model_files.inspect(path, download=False)
    if found := [*model.findings, *model_files.processor_findings(path, model)]:
        raise PreflightError("\n".join(map(str, found)))
    if pictures and model.config is not None and not model.sees:
        raise PreflightError(
            f"the prompts show pictures, and {path} (model type {model.config.get('model_type')}) takes only text: choose "
            "a vision-language model as actor_rollout_ref.model.path, or tasks on graphs"
        )
    folder = Path(os.path.expanduser(path))
    if (folder / "preprocessor_config.json").is_file():
        from verl.utils import hf_processor

        if hf_processor(str(folder)) is None:
            raise PreflightError(
                f"verl finds no processor in {path}, so pictures would be lost: it knows {model_files.FAMILIES}, and needs "
                "a torchvision that imports (`ssl4rl doctor`)"
            )
