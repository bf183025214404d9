"""The options by which a verb is told which model to ask. Imports stay inside, see `lfpc.cli`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lfpc.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lfpc.evaluate.config import EvaluationConfig
    from lfpc.evaluate.judge import Judge
    from lfpc.policies.loading import Host
    from lfpc.policies.served import Server
    from lfpc.policies.settings import CheckpointSettings


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a model is served, and how the server is asked."""

    base_url: str | None = None
    """Address of an OpenAI-compatible server, as in http://127.0.0.1:8000/v1. Its key is read from
    OPENAI_API_KEY."""
    concurrency: int = 32
    """Questions that the server is asked at once."""
    timeout: float = 600.0
    """Seconds without a sign of the server after which a request is made again."""
    retries: int = 6
    """How often a failed request is made again."""
    picture_folder: Path | None = None
    """Folder through which the server gets pictures as files (vLLM: --allowed-local-media-path);
    None: inside the request."""
    engine_options: str = "{}"
    """Arguments of vLLM in this process, as JSON: {"max_model_len": 32768}."""

    def server(self, base_url: str) -> "Server":
        """The server at `base_url`, asked as these options say."""
        from lfpc.policies.served import Server

        return Server(
            base_url=base_url,
            concurrency=self.concurrency,
            timeout_s=self.timeout,
            retries=self.retries,
            picture_folder=self.picture_folder,
        )

    def host(self, address: str | None) -> "Host":
        """Who computes the replies: the server at `address`, vLLM in this process ("vllm"), or
        transformers in this process (None).
        """
        from lfpc.policies.loading import IN_VLLM
        from lfpc.policies.vllm import VllmEngine

        if address == IN_VLLM:
            return VllmEngine(options=json_object("engine_options", self.engine_options))
        return None if address is None else self.server(address)


@dataclass(frozen=True, kw_only=True)
class AnsweringModel(ServerOptions):
    """The model of a verb: a checkpoint in this process, or one that a server has. Each verb adds
    what it asks.
    """

    checkpoint: Path | None = None
    """Checkpoint to load into this process; or give --base-url and --model."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What computes a checkpoint's replies in this process."""
    model: str | None = None
    """Name of the served model."""
    protocol: str | None = None
    """Protocol of the model family; docs/protocols.md lists the names. Default: the checkpoint's
    (lfpc.json), else qwen2_5_vl."""
    max_new_tokens: int | None = None
    """Token limit of a reply. Default: the checkpoint's (lfpc.json), else 512."""
    temperature: float = 0.0
    """Of sampling; 0: always the likeliest token."""
    top_p: float = 1.0
    """Share of the probability that is sampled from."""
    sampling_seed: int | None = None
    """Of the model's random numbers; None: a checkpoint's 0, a server's own."""
    extra_body: str = "{}"
    """Further fields of each request to the server, as JSON."""

    def defaults(self) -> "CheckpointSettings":
        """What holds where no option is given: what the checkpoint was trained with."""
        from lfpc.policies.settings import CheckpointSettings, read_settings

        found = None if self.checkpoint is None else read_settings(self.checkpoint)
        return found or CheckpointSettings()

    def asked(self, *, seed: int = 0, **settings: Any) -> "tuple[EvaluationConfig, Host]":
        """The settings, of no particular budget or probe yet, and who computes the replies."""
        from lfpc.evaluate.config import EvaluationConfig

        served = self.base_url is not None
        if (self.checkpoint is not None) == served or (self.model is not None) != served:
            raise ConfigError("give either --checkpoint, or --base-url and --model")
        if served and self.engine != "transformers":
            raise ConfigError(
                f"--engine {self.engine} computes a checkpoint's replies; with --base-url "
                f"the server does"
            )
        defaults = self.defaults()
        limit = self.max_new_tokens
        config = EvaluationConfig(
            model=str(self.model or self.checkpoint),
            budget=None,
            probe="own",
            protocol=self.protocol or defaults.protocol,
            max_new_tokens=defaults.max_new_tokens if limit is None else limit,
            temperature=self.temperature,
            top_p=self.top_p,
            sampling_seed=self.sampling_seed,
            extra_body=json_object("extra_body", self.extra_body),
            seed=seed,
            **settings,
        )
        return config, self.host(self.base_url or ("vllm" if self.engine == "vllm" else None))


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option holds.

    Raises:
        ConfigError: it holds something else; names the option.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{option} must be a JSON object, got {text!r}")
    return found


@dataclass(frozen=True, kw_only=True)
class AskedModel(AnsweringModel):
    """A model that is asked with the crop tool."""

    coords: Literal["mapped", "as-released"] = "mapped"
    """mapped: boxes mean what the model was told. as-released: what the family's published script
    made of them."""
    crop_tokens: tuple[int, int] | None = None
    """Minimum and maximum visual tokens of a crop. Default: the checkpoint's (lfpc.json), else the
    protocol's."""
    max_turns: int | None = None
    """Turn limit of an episode. Default: the checkpoint's (lfpc.json), else 6."""

    def asked(self, *, seed: int = 0, **settings: Any) -> "tuple[EvaluationConfig, Host]":
        """The settings, with what holds for crops."""
        from lfpc.protocols import protocol_named

        defaults = self.defaults()
        protocol = self.protocol or defaults.protocol
        crop = defaults.crop if protocol == defaults.protocol else None
        if self.crop_tokens is not None:
            least, most = self.crop_tokens
            rules = protocol_named(protocol, self.coords).crop
            crop = replace(rules, min_tokens=least, max_tokens=most)
        turns = defaults.max_turns if self.max_turns is None else self.max_turns
        return super().asked(seed=seed, coords=self.coords, crop=crop, max_turns=turns, **settings)


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Who judges free answers, if anybody does."""

    judge: str | None = None
    """Address of an OpenAI-compatible server that judges free answers, ending in /v1; None: rules
    alone."""
    judge_model: str | None = None
    """Name of the judging model on that server; None: the only one it has."""
    judge_cache: Path | None = None
    """File of the judge's verdicts, which runs may share; None: judge.jsonl in the output
    folder."""
    judge_concurrency: int = 8
    """Questions that the judge is asked at once."""

    def asked_judge(self, folder: Path) -> "AbstractContextManager[Judge | None]":
        """The judge, to be used in a `with`; None inside it if there is none."""
        from contextlib import nullcontext

        from lfpc.evaluate.judge import Judge, JudgeConfig, only_model

        if self.judge_model and not self.judge:
            raise ConfigError(
                "--judge-model names a model of a judge's server: give --judge, its address, too"
            )
        if not self.judge:
            return nullcontext()
        model = self.judge_model or only_model(self.judge)
        cache = self.judge_cache or folder / "judge.jsonl"
        return Judge(
            JudgeConfig(
                url=self.judge, model=model, cache=cache, concurrency=self.judge_concurrency
            )
        )


def several(words: Sequence[str]) -> list[str]:
    """Words given apart or with commas between them."""
    return [word for some in words for word in some.split(",") if word]


def whole_numbers(option: str, words: Sequence[str]) -> list[int]:
    """`several` whole numbers of 1 or more.

    Raises:
        ConfigError: one is not; it names the option.
    """
    try:
        numbers = [int(word) for word in several(words)]
    except ValueError:
        numbers = [0]
    if min(numbers, default=1) < 1:
        raise ConfigError(f"{option} must be whole numbers of 1 or more, got {' '.join(words)}")
    return numbers
