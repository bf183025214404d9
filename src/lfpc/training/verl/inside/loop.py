"""One rollout: our episode against verl's sampling server, with the protocol, look and limits of
the local engine.

    prompt            | response
    p p V V V p p p   | r r r  o V V o  r r      as in lfpc.policies.qwen.encode.Encoded
                      | 1 1 1  0 0 0 0  1 1      response_mask: only sampled tokens are trained

The mask is that of `lfpc.training.rollouts`, from the first reply on.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from transformers import PreTrainedTokenizerBase
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from lfpc.dialogue import Context, Reply
from lfpc.episode import Episode, episode, play_async
from lfpc.looks import Look, original_look
from lfpc.policies.qwen.encode import Encoded, Encoder
from lfpc.policies.qwen.folder import picture_template
from lfpc.policies.qwen.sampling import Writer
from lfpc.protocols import ProtocolFile, protocol_named
from lfpc.records import terms_to_json
from lfpc.rewards import episode_reward
from lfpc.training.config import TrainConfig
from lfpc.training.draw import FirstView, first_views
from lfpc.training.verl.inside.section import run_config
from lfpc.training.verl.lines import sample_of_line
from lfpc.training.verl.recording import played
from lfpc.training.verl.translate import NAME

NEVER = -100.0
"""Added to the score of a banned token: the lowest value that vLLM accepts."""


class ServerPolicy:
    """The policy behind verl's server, for one episode.

    Args:
        server: verl's client of its sampling servers.
        encoder, writer: encoder and writer of the policy's tokenizer.
        config: the run.
        sampling: verl's sampling parameters (temperature 0 in validation).
        name: id of the episode, which routes its turns to one server.
    """

    concurrency = 1

    def __init__(
        self,
        server: Any,
        encoder: Encoder,
        writer: Writer,
        config: TrainConfig,
        sampling: Mapping[str, Any],
        name: str,
    ) -> None:
        self.server = server
        self.encoder = encoder
        self.writer = writer
        self.config = config
        self.name = name
        banned = [int(token) for token in np.flatnonzero(writer.banned.numpy())]
        self.sampling = {
            **sampling,
            "max_tokens": config.max_new_tokens,
            "stop": list(encoder.protocol.stop),
            "include_stop_str_in_output": True,
            "logit_bias": dict.fromkeys(banned, NEVER),
        }
        self.seconds = 0.0
        self.weights_of = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def reply_to(self, context: Context) -> Reply:
        """The reply to `context`; empty if the conversation is already too long, which ends the
        episode untrained.
        """
        encoded = self.encoder.context(context)
        if len(encoded.ids) > self.config.max_rollout_tokens:
            return Reply("")
        started = time.perf_counter()
        output = await self.server.generate(
            request_id=self.name,
            prompt_ids=encoded.ids.tolist(),
            sampling_params=dict(self.sampling),
            image_data=[view.image for view in encoded.views],
        )
        self.seconds += time.perf_counter() - started
        self.weights_of = output.extra_fields.get("global_steps") or 0
        ids = tuple(output.token_ids)
        # verl calls a reply completed whether the model or the token limit ended it
        aborted = output.stop_reason if output.stop_reason == "aborted" else ""
        return Reply(
            self.writer.text(ids),
            ids,
            tuple(output.log_probs or ()),
            finish=aborted or self.writer.finish(ids),
        )


@register(NAME)
class EpisodeLoop(AgentLoopBase):
    """Plays one item of the dataset. verl makes one instance per rollout; shared parts are cached
    per process.
    """

    def __init__(
        self, trainer_config: Any, server_manager: Any, tokenizer: PreTrainedTokenizerBase, **_: Any
    ) -> None:
        # without the base class's, which prepares a tokenisation that ours replaces
        self.run_config = run_config(trainer_config.config)
        self.server = server_manager
        self.tokenizer = tokenizer

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Play and score."""
        config = self.run_config
        started = time.perf_counter()
        sample = sample_of_line(row["sample"])
        encoder, writer = _reading(self.tokenizer, config.protocol, config.init)
        first_view, look = _showing(config)
        policy = ServerPolicy(
            self.server,
            encoder,
            writer,
            config,
            sampling_params,
            f"{row['uid']}-{row.get('session_id', 0)}",
        )
        view = await asyncio.to_thread(first_view, sample)
        game = episode(sample, view, look=look, protocol=config.chat, max_turns=config.max_turns)
        finished = await play_async(game, policy)
        terms = episode_reward(finished, config.reward)
        output = rollout_output(finished, encoder, config)
        overlong = not any(output.response_mask) and not config.masks(finished)
        report = played(
            finished,
            terms,
            question=int(row["index"]),
            rollout=int(row.get("session_id", 0)),
            overlong=overlong,
            factor=config.chat.factor,
        )
        output.reward_score = terms.total
        output.metrics = AgentLoopMetrics(
            generate_sequences=policy.seconds,
            tool_calls=time.perf_counter() - started - policy.seconds,
            compute_score=0.0,
        )
        output.extra_fields = {
            NAME: report.to_bytes(),
            "reward_extra_info": terms_to_json(terms),
            "min_global_steps": policy.weights_of,
            "max_global_steps": policy.weights_of,
        }
        return output


def rollout_output(finished: Episode, encoder: Encoder, config: TrainConfig) -> AgentLoopOutput:
    """An episode in verl's format. One that is too long has only its first reply, untrained; one
    that the run masks is whole, untrained.
    """
    before = Context(
        finished.sample.question, finished.sample.options, finished.first_view, finished.turns[:-1]
    )
    encoded = encoder.episode(before, finished.turns[-1].reply)
    sound = all(
        turn.reply.token_ids and len(turn.reply.token_ids) == len(turn.reply.logprobs)
        for turn in finished.turns
    )
    if len(encoded.ids) > config.max_rollout_tokens or not sound:
        first = Context(finished.sample.question, finished.sample.options, finished.first_view, ())
        wrote = finished.turns[0].reply
        wrote = (
            wrote if wrote.token_ids else Reply("", (encoder.end_of_turn,))
        )  # verl needs a response of at least one token
        return _output(encoder.episode(first, wrote), (), len(finished.turns))
    if config.masks(finished):
        return _output(encoded, (), len(finished.turns))
    logprobs = tuple(logprob for turn in finished.turns for logprob in turn.reply.logprobs)
    return _output(encoded, logprobs, len(finished.turns))


def _output(encoded: Encoded, logprobs: tuple[float, ...], turns: int) -> AgentLoopOutput:
    start = encoded.prefix + 1
    trained = np.zeros(len(encoded.ids), dtype=bool)
    for span in encoded.replies if logprobs else ():
        trained[slice(*span)] = True
    sampled = np.zeros(len(encoded.ids))
    sampled[trained] = logprobs
    return AgentLoopOutput(
        prompt_ids=encoded.ids[:start].tolist(),
        response_ids=encoded.ids[start:].tolist(),
        response_mask=trained[start:].astype(int).tolist(),
        response_logprobs=sampled[start:].tolist(),
        multi_modal_data={"images": [view.image for view in encoded.views]},
        num_turns=turns,
        metrics=AgentLoopMetrics(),
    )


@lru_cache(maxsize=2)
def _reading(
    tokenizer: PreTrainedTokenizerBase, protocol: str | ProtocolFile, init: Path
) -> tuple[Encoder, Writer]:
    tokenizer.chat_template = picture_template(init) or tokenizer.chat_template
    chat = protocol_named(protocol)
    return Encoder(tokenizer, chat), Writer(tokenizer, chat.stop, len(tokenizer))


@lru_cache(maxsize=1)
def _showing(config: TrainConfig) -> tuple[FirstView, Look]:
    """Functions for first views and crops, with caches shared by all episodes of the process."""
    return first_views(config), original_look(config.crop)
