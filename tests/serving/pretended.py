"""Scripts of servers of other makes, as far as their answers tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.serving.scripted import Asked, Scripted, answer, chat, error

CONCLUDES = "Both red. <CONCLUSION> YES </CONCLUSION>"


def images_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The image parts of a request."""
    content = [part for m in body["messages"] if isinstance(m["content"], list) for part in m["content"]]
    return [part for part in content if part["type"] == "image_url"]


@dataclass
class Server:
    """Answers as told; `headers` go with every chat answer."""

    owner: str = "somebody"
    longest: int | None = None
    most_images: int = 1000
    obeys: bool = True
    """`structured_outputs` is obeyed; otherwise it is ignored."""
    says: str = CONCLUDES
    conversations: bool = False
    texts: bool = False
    constant: bool = False
    """All embeddings are alike."""
    headers: dict[str, str] | None = None
    models: tuple[str, ...] = ("m",)

    def __call__(self, server: Scripted, asked: Asked) -> bytes:
        if asked.path.endswith("/models"):
            entry: dict[str, Any] = {"object": "model", "owned_by": self.owner}
            if self.longest is not None:
                entry["max_model_len"] = self.longest
            return answer({"object": "list", "data": [entry | {"id": name} for name in self.models]})
        if asked.path.endswith("/embeddings"):
            return self._embed(asked.body)
        if len(images_in(asked.body)) > self.most_images:
            said = f"At most {self.most_images} image(s) may be provided in one prompt."
            return error("400 Bad Request", said)
        if asked.body.get("structured_outputs") and self.obeys and len(asked.body["messages"][0]["content"]) < 99:
            return chat("<CONCLUSION> YES </CONCLUSION>" if not images_in(asked.body) else CONCLUDES)
        text = chat(self.says)
        if self.headers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()).encode()
            text = text.replace(b"Content-Type", lines + b"Content-Type", 1)
        return text

    def _embed(self, body: dict[str, Any]) -> bytes:
        if not (self.conversations if "messages" in body else self.texts):
            return error("400 Bad Request", "this model has no embeddings")
        seen = 0 if self.constant else sum(map(ord, str(body)))
        return answer({"data": [{"embedding": [1.0, seen % 97, 2.0]}]})
