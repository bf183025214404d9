"""A model on a page and behind an endpoint. Imports stay inside `run`, see `lfpc.cli`."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lfpc.cli.model import AskedModel
from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError

if TYPE_CHECKING:
    from lfpc.evaluate.config import EvaluationConfig
    from lfpc.policies.backends import Backend


@dataclass(frozen=True, kw_only=True)
class Serve(AskedModel):
    """Serve a page where one asks a model about a picture and swaps its crops, and an
    OpenAI-compatible endpoint at /v1.

    Without a model named, the miniature's base checkpoint answers. docs/serve.md says more.
    """

    budget: int | None = None
    """Visual tokens of the first view. Default: 25 for a miniature, else 1024."""
    port: int = 8017
    """Port to answer at; 0: a free one."""
    public: bool = False
    """Answer other machines too, if they know the key in LFPC_API_KEY. Nothing is encrypted: put a
    proxy in front that does."""

    def run(self) -> str:
        from lfpc.web import need_web

        need_web()
        from lfpc.ask.live import live_model
        from lfpc.web.ask.app import LARGEST_BODY, ask_app
        from lfpc.web.ask.keys import KEY_VARIABLE, checked_key, keyed
        from lfpc.web.serving import serve

        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"budget must be at least 1 visual token, got {self.budget}")
        key = checked_key(os.environ.get(KEY_VARIABLE), public=self.public)
        name, config, backend, small = self._chosen()
        with TemporaryDirectory(prefix="lfpc-serve-") as folder:
            app = ask_app(
                live_model(name, config, backend),
                Path(folder),
                examples="test" if small else "large",
            )
            serve(
                keyed(app, key) if key else app,
                f"model {name}",
                port=self.port,
                largest_body=LARGEST_BODY,
                public=self.public,
            )
        return "stopped"

    def _chosen(self) -> "tuple[str, EvaluationConfig, Backend, bool]":
        """The model's name, how it is asked, what computes its replies, and whether it is a
        miniature.
        """
        if self.base_url is not None or (self.checkpoint is None and self.model is not None):
            config, backend = self.asked()
            return config.model, replace(config, budget=self.budget or 1024), backend, False
        from lfpc.mini.demo import (  # imports torch, which a served model does without
            base_checkpoint,
            is_miniature,
            miniature_settings,
        )

        config, backend = replace(self, checkpoint=self.checkpoint or base_checkpoint()).asked()
        small = is_miniature(Path(config.model))
        config = replace(
            miniature_settings(config) if small else config,
            budget=self.budget or (25 if small else 1024),
        )
        return (
            Path(config.model).resolve().name if self.checkpoint else "lfpc-mini",
            config,
            backend,
            small,
        )


VERBS: dict[str, type[Verb]] = {"serve": Serve}
