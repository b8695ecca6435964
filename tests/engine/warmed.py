"""A machine that keeps compiled code: what `invoke serve` and `invoke warm` say there, and what its servers answer."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from typing import Any

from images.commands import serve as serving
from images.commands import warm as warming
from images.core.report import Report
from images.docker.engine import Engine
from images.proof.smoke.client import Client, chat_request
from images.proof.smoke.compare_logits import ModelAnswer
from images.proof.smoke.server import question_messages
from images.proof.tiny_model import picture
from images.run.serve import pick
from images.run.serve import start as starting
from tests.engine.cpu_server import LIGHT, docker, free_port
from tests.helpers.contexts import context


@dataclass(frozen=True)
class Here:
    """A machine with a state folder of its own."""

    engine: Engine
    image: str
    model: str
    env: tuple[str, ...] = LIGHT
    flags: tuple[str, ...] = ()
    wait: int = 400

    @property
    def question(self) -> list[dict[str, Any]]:
        """A picture and a text."""
        return question_messages("What colour is the square?", picture.as_data_url(picture.png("red")))

    def said(self, action: str, **asked: object) -> tuple[str, str]:
        """What `invoke serve` or `warm` prints, and what it says meanwhile."""
        out, err = io.StringIO(), io.StringIO()
        told = context(Report(out, err, live=False), engine=self.engine, locked={})
        words = {"model": self.model, "image": self.image, "env": self.env, "flags": self.flags, **asked}
        if action == "warm":
            warming.keep_compiled(told, warming.WarmOptions(**words))  # type: ignore[arg-type]
        else:
            serving.start_server(told, pick.ServeOptions(**words))  # type: ignore[arg-type]
        return out.getvalue(), err.getvalue()

    def served(self, *, compiled: set[str] | None = None, **asked: object) -> tuple[str, str, ModelAnswer]:
        """A server from its start with an empty cache to its end: what `serve` said, its log, and an answer.

        ``compiled`` is given the names of the libraries that its cache holds then.
        """
        name = cache = f"cardstock-test-{uuid.uuid4().hex[:8]}"
        port = free_port()
        try:
            _, said = self.said("serve", name=name, cache=cache, port=port, served="tiny", wait=self.wait, **asked)
            answer = Client(port).chat(chat_request("tiny", self.question, max_tokens=8))
            log = self.engine.containers.log(name, 4000)
            if compiled is not None:
                _, found = self.engine.containers.execute(name, ["find", "/cache", "-name", "*.so"])
                compiled.update(found.split())
            assert starting.stop(self.engine.containers, name).clean
        finally:
            if self.engine.containers.find(name):
                self.engine.containers.remove(name)
            docker(self.engine, ["volume", "rm", "--force", cache])
        return said, log, answer


def left(engine: Engine) -> str:
    """Containers and volumes of `warm` that are there."""
    names = docker(engine, ["ps", "--all", "--format", "{{.Names}}"]) + docker(engine, ["volume", "ls", "--quiet"])
    return " ".join(name for name in names.split() if name.startswith("cardstock-warm"))
