"""A model on a page and behind an endpoint. Imports stay inside `run`, see `lfpc.cli`."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Self

from lfpc.cli.model import AskedModel
from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError

SMALL = 256
"""Maximum first-view budget in training of a model that gets the small example pictures."""


@dataclass(frozen=True, kw_only=True)
class Serve(AskedModel):
    """Serve a page for questions about pictures, with crops to swap, and an OpenAI-compatible
    endpoint at /v1.

    The default model is the miniature's base checkpoint. See docs/serve.md.
    """

    EXAMPLES: ClassVar = (
        "lfpc serve",
        "lfpc serve --checkpoint CHECKPOINT --port 8017",
        "lfpc serve --base-url http://127.0.0.1:8000/v1 --model NAME --protocol deepeyes",
    )

    FIRST: ClassVar = (*AskedModel.FIRST, "port", "public")

    budget: int | None = None
    """Visual tokens of the first view. Default: the checkpoint's (lfpc.json), else 1024."""
    port: int = 8017
    """Port to listen at; 0: a free one."""
    public: bool = False
    """Also serve other machines, which need the key in LFPC_API_KEY. Connections are not encrypted:
    use a proxy that encrypts."""

    def run(self) -> str:
        from lfpc.web import need_web

        need_web()
        from lfpc.ask.live import live_model
        from lfpc.policies.backends import Server
        from lfpc.policies.connections import check_model
        from lfpc.web.ask.app import LARGEST_BODY, ask_app
        from lfpc.web.ask.keys import KEY_VARIABLE, checked_key, keyed
        from lfpc.web.serving import address_for, bound_socket, serve

        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"--budget must be at least 1 visual token, got {self.budget}")
        key = checked_key(os.environ.get(KEY_VARIABLE), public=self.public)
        name, model = self._chosen()
        config, backend = model.asked()
        defaults = model.defaults()
        config = replace(config, budget=self.budget or defaults.budget)
        examples = "wide-test" if defaults.full_budget <= SMALL else "large"
        with (
            bound_socket(self.port, address_for(self.public)) as listening,
            TemporaryDirectory(prefix="lfpc-serve-") as folder,
        ):
            if isinstance(backend, Server):
                check_model(backend.base_url, config.model)
            app = ask_app(live_model(name, config, backend), Path(folder), examples=examples)
            serve(
                keyed(app, key) if key else app,
                f"model {name}",
                listening=listening,
                largest_body=LARGEST_BODY,
                public=self.public,
            )
        return "stopped"

    def _chosen(self) -> tuple[str, Self]:
        """The name of the model, and the options with the default model filled in."""
        if self.base_url is not None or self.model is not None:
            return str(self.model), self
        if self.checkpoint is not None:
            return self.checkpoint.resolve().name, self
        from lfpc.mini.folders import base_checkpoint

        return "lfpc-mini", replace(self, checkpoint=base_checkpoint())


VERBS: dict[str, type[Verb]] = {"serve": Serve}
