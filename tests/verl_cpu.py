"""A test double that lets the real verl run without a GPU: a platform called cpu, and a rollout
engine called lfpc_cpu.

verl loads this module in each of its processes (VERL_USE_EXTERNAL_MODULES=verl_cpu
VERL_PLATFORM=cpu VERL_ENGINE_DEVICE=cuda, as `make test-verl` sets them) and finds both in its
registries:

* the platform answers what verl asks about devices; its GPUs are logical ones that Ray is told of;
* the rollout engine is one Ray actor per rank with a model in it. It samples as vLLM would with the
same `sampling_params`: stop
  texts stay in the reply, a token with a bias of -100 is never drawn, log-probabilities are those
  of what may be drawn. Requests that wait are answered together. Weights come from the trainer
  after every step, and only from there.

Everything else is real: trainer, queue, agent loops, FSDP2 over gloo, checkpoints. Never for
training anything but tests.
"""

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import ray
import torch
import verl.utils.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from lfpc.boxes import WHOLE
from lfpc.images import View
from lfpc.policies.qwen.adapters import PREFIX
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.qwen.encode import IMAGE_PAD, Encoded, rope_positions
from lfpc.policies.qwen.language import read
from lfpc.policies.qwen.sampling import ROOM, Writer, write
from lfpc.policies.qwen.vision import ViewEncoder
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import row_features

ENGINE = "lfpc_cpu"
NAME = "lfpc_cpu_server_{}"


def settings(gpus: int) -> tuple[str, ...]:
    """Settings of verl that go with this module, for so many ranks."""
    return (
        "trainer.device=cpu",
        "actor_rollout_ref.actor.use_torch_compile=false",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        "ray_kwargs.ray_init.num_cpus=16",
        f"+ray_kwargs.ray_init.num_gpus={gpus}",
        "+ray_kwargs.ray_init.include_dashboard=false",
    )


# ---- platform

_MEMORY = {
    "empty_cache": lambda: None,
    "ipc_collect": lambda: None,
    "reset_peak_memory_stats": lambda *_: None,
    "mem_get_info": lambda *_: (1 << 30, 1 << 30),
    "get_rng_state": torch.get_rng_state,
    "set_rng_state": torch.set_rng_state,
    "manual_seed": torch.manual_seed,
    "manual_seed_all": torch.manual_seed,
    **dict.fromkeys(
        ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"),
        lambda *_: 0,
    ),
}
for (
    _name,
    _function,
) in _MEMORY.items():  # torch.cpu has no memory to speak of; verl asks for it on every device
    if not hasattr(torch.cpu, _name):
        setattr(torch.cpu, _name, _function)


@PlatformRegistry.register(platform="cpu")
class Cpu(PlatformBase):
    """One logical device per rank."""

    device_name = property(lambda self: "cpu")
    vendor_name = property(lambda self: "cpu")
    device_module = property(lambda self: torch.cpu)

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg):
        return nullcontext()

    def ray_resource_name(self):
        return "GPU"

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def nothing(self, *_, **__):
        return None

    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = (
        profiler_stop
    ) = cudart = nothing


def _join_gloo(timeout_second=None, backend=None):
    """verl asks for "cpu:gloo,cpu:gloo" here, which torch refuses."""
    if not torch.distributed.is_initialized():
        rank = int(os.environ["RANK"])
        size = int(os.environ["WORLD_SIZE"])
        torch.distributed.init_process_group(
            "gloo", rank=rank, world_size=size, init_method=os.environ.get("DIST_INIT_METHOD")
        )


verl.utils.distributed.initialize_global_process_group_ray = _join_gloo


# ---- rollout engine


class Server:
    """Samples replies to prompts of token ids and pictures."""

    def __init__(self, model_path: str, seed: int) -> None:
        torch.set_num_threads(1)
        self.model, self.tokenizer = load_checkpoint(Path(model_path))
        self.views = ViewEncoder(self.model)
        self.pad = self.tokenizer.get_vocab()[IMAGE_PAD]
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting = []
        self.busy = asyncio.Lock()
        self.step = None
        self.base = None

    async def generate(
        self, request_id, prompt_ids, sampling_params, image_data=None, video_data=None, **_
    ):
        """One reply; requests that arrive while others are answered are answered together after
        them."""
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((self._encoded(prompt_ids, image_data), sampling_params, done))
        await asyncio.sleep(0.05)
        async with self.busy:
            if self.waiting:
                taken = self.waiting
                self.waiting = []
                replies = await asyncio.to_thread(
                    self._answer, [encoded for encoded, _, _ in taken], taken[0][1]
                )
                for (*_, future), reply in zip(taken, replies, strict=True):
                    future.set_result(reply)
        reply = await done
        return TokenOutput(
            token_ids=reply.ids,
            log_probs=reply.logprobs,
            stop_reason="completed",
            extra_fields={"global_steps": self.step},
        )

    def _encoded(self, ids, images) -> Encoded:
        ids = np.asarray(ids)
        pads = ids == self.pad
        views = tuple(View(image, WHOLE) for image in images)
        vision = self.model.config.vision_config
        token = vision.patch_size * vision.spatial_merge_size
        grids = [(view.size[1] // token, view.size[0] // token) for view in views]
        positions = rope_positions(pads, grids)
        first = grids[0][0] * grids[0][1]
        return Encoded(ids, views, (), int(np.flatnonzero(pads)[first - 1]) + 1, positions)

    @torch.no_grad()
    def _answer(self, rows, params):
        writer = Writer(self.tokenizer, params["stop"], self.model.lm_head.weight.shape[0])
        writer.banned[:] = False
        writer.banned[
            [int(token) for token, bias in params["logit_bias"].items() if bias == -100]
        ] = True
        sampling = Sampling(temperature=params["temperature"], max_new_tokens=params["max_tokens"])
        start = read(self.model, rows, row_features(self.views, rows), prefixes=None, room=ROOM)
        return write(self.model, rows, start, writer, sampling, self.generator)

    async def load_weights(self, weights, adapter, step):
        """The trainer's weights; every one of ours has to be among them, but for tied ones. With
        `adapter`, peft's settings, they are those of adapters alone."""
        async with self.busy:
            if adapter is not None:
                weights = self._adapted(weights, adapter["lora_alpha"] / adapter["r"])
            found = self.model.load_state_dict(weights, strict=False)
            assert not found.unexpected_keys, found.unexpected_keys
            assert set(found.missing_keys) <= {"lm_head.weight"}, found.missing_keys
            self.step = step

    def _adapted(self, adapters, scale):
        """The weights of the checkpoint with the adapters merged."""
        self.base = self.base or {n: w.clone() for n, w in self.model.state_dict().items()}
        merged = dict(self.base)
        lows = [name for name in adapters if name.endswith(".lora_A.weight")]
        assert 2 * len(lows) == len(adapters), list(adapters)
        for low in lows:
            name = low.removeprefix(PREFIX).replace(".lora_A.", ".")
            change = adapters[low.replace(".lora_A.", ".lora_B.")] @ adapters[low]
            merged[name] = self.base[name] + scale * change
        return merged

    async def ready(self):
        return True

    async def nothing(self, *_, **__):
        return None

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = nothing

    async def set_global_steps(self, step):
        self.step = step


class Replica(RolloutReplica):
    """One server for one rank."""

    async def launch_servers(self):
        options = {"name": NAME.format(self.replica_rank), "max_concurrency": 512, "num_cpus": 0}
        server = (
            ray.remote(Server).options(**options).remote(self.model_config.path, self.replica_rank)
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = f"inside:{self.replica_rank}"


class Adapter(base.BaseRollout):
    """Hands the trainer's weights to the rank's server."""

    async def resume(self, tags):
        return None

    async def release(self):
        return None

    async def update_weights(self, weights, global_steps=None, peft_config=None, **_):
        copied = {
            name: weight.detach().to("cpu", torch.float32).clone() for name, weight in weights
        }
        await ray.get_actor(NAME.format(os.environ["RANK"])).load_weights.remote(
            copied,
            peft_config and {key: peft_config[key] for key in ("r", "lora_alpha")},
            global_steps,
        )


RolloutReplicaRegistry.register(ENGINE, lambda: Replica)
base._ROLLOUT_REGISTRY[ENGINE, "async"] = f"{__name__}.Adapter"
