"""From messages in OpenAI's chat format to the token ids of a prompt: one function for training and serving (no torch).

ChatML; the parts of a message stand on lines of their own, an image directly behind the text before it. Text is never
read as a control token: what looks like one is broken up. `<embedding>` and the words around a conclusion are ordinary
words. `CHAT_TEMPLATE` says the same for servers that build prompts themselves (vLLM), token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from serving.llava.errors import MessageError

PAD, START, END, IMAGE = "<|pad|>", "<|im_start|>", "<|im_end|>", "<image>"
QWEN_PAD = "<|endoftext|>"
"""What Qwen2's vocabularies pad with."""
EMBEDDING, CONCLUDE, CONCLUDED = "<embedding>", "<CONCLUSION>", "</CONCLUSION>"
SPECIALS = (PAD, START, END, IMAGE)
WORDS = (EMBEDDING, CONCLUDE, CONCLUDED)
_BROKEN_UP = {"<|": "< |", IMAGE: "< image>", "<video>": "< video>"}

_PLAIN = "".join(f" | replace({old!r}, {new!r})" for old, new in _BROKEN_UP.items())
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}"
    "{{- (message['content'] | trim if message['role'] == 'assistant' else message['content'])" + _PLAIN + " -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}"
    "{%- if not loop.first -%}{{- '\\n' -}}{%- endif -%}{{- part['text']" + _PLAIN + " -}}"
    "{%- else -%}{{- '<image>' -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- if message['role'] != 'assistant' or not loop.last or add_generation_prompt -%}"
    "{{- '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""`build_prompt` in Jinja, as tokenizers and vLLM take it."""

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What the language model reads."""

    ids: list[int]
    """Token ids; an image stands as so many image placeholders as it has tokens."""
    image_urls: list[str]
    """The images' URLs in the order of their placeholders."""


class Vocabulary:
    """The tokenizer with its fixed words at hand."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        pad = PAD if tokenizer.token_to_id(PAD) is not None else QWEN_PAD
        self.pad, self.start, self.end, self.image = (_id(tokenizer, name) for name in (pad, START, END, IMAGE))
        self.embedding = _id(tokenizer, EMBEDDING)
        self.added: tuple[int, ...] = ()
        """Entries that the model has never seen: added when the tokenizer was read."""
        self.encode = lru_cache(maxsize=4096)(self._encode)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)))

    @classmethod
    def train(cls, texts: Sequence[str], size: int) -> Vocabulary:
        """A byte-level BPE vocabulary of at most `size` entries that fits `texts`."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        specials = [AddedToken(name, special=True, normalized=False) for name in SPECIALS]
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(WORDS),
            show_progress=False,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_tokens([AddedToken(name, special=False, normalized=False, lstrip=True) for name in WORDS])
        return cls(tokenizer)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply."""
        text: str = self.tokenizer.decode(
            [i for i in ids if i not in (self.pad, self.start, self.end, self.image)], skip_special_tokens=False
        )
        for word in WORDS:
            text = text.replace(word, f" {word}")
        return " ".join(text.split())


def _id(tokenizer: Tokenizer, name: str) -> int:
    number = tokenizer.token_to_id(name)
    if number is None:
        raise ValueError(f"the tokenizer has no {name}: these are not the weights of this model")
    return int(number)


def build_prompt(
    messages: Sequence[Message], vocabulary: Vocabulary, image_tokens: int | Callable[[str], int]
) -> Prompt:
    """The prompt that a chat stands for, open for the assistant's reply, or for more of it if the assistant spoke last.

    Args:
        image_tokens: tokens that an image becomes, or what tells them by the image's URL.

    Raises MessageError for an empty chat, an unknown role, and parts other than `text` and `image_url`.
    """
    ids: list[int] = []
    urls: list[str] = []
    words = ""  # text since the last control token, encoded as one piece: tokens may reach over the end of a part

    def control(token: int, times: int = 1) -> None:
        nonlocal words
        ids.extend(vocabulary.encode(words))
        ids.extend([token] * times)
        words = ""

    chat = _read(messages)
    for number, (role, parts) in enumerate(chat):
        control(vocabulary.start)
        words += f"{role}\n"
        for place, (text, url) in enumerate(parts):
            if url is not None:
                control(vocabulary.image, image_tokens if isinstance(image_tokens, int) else image_tokens(url))
                urls.append(url)
            else:
                words += ("\n" if place else "") + _plain(text)
        if role != "assistant" or number < len(chat) - 1:
            control(vocabulary.end)
            words += "\n"
    if chat[-1][0] != "assistant":
        control(vocabulary.start)
        words += "assistant\n"
    return Prompt([*ids, *vocabulary.encode(words)], urls)


def image_urls(messages: Sequence[Message]) -> list[str]:
    """The images of a chat in their order; raises as `build_prompt`."""
    return [url for _, parts in _read(messages) for _, url in parts if url is not None]


def _plain(text: str) -> str:
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise MessageError("a text holds half a character (a lone surrogate): send valid Unicode")
    for control, broken_up in _BROKEN_UP.items():
        text = text.replace(control, broken_up)
    return text


def with_embedding(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its last message ending in `<embedding>`, written in one way."""
    if not messages or messages[-1].get("role") != "assistant":
        raise MessageError("the last message must be the assistant's description of the item")
    content = messages[-1].get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if not isinstance(content, str):
        raise MessageError("the assistant's description must be text")
    said = content.replace(EMBEDDING, " ").strip()
    return [*messages[:-1], {"role": "assistant", "content": f"{said}{EMBEDDING}"}]


def _read(messages: Sequence[Message]) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """(role, parts) of every message."""
    if not messages:
        raise MessageError("messages is empty; send at least one user message")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise MessageError(f"messages[{number}] must be an object with role and content")
        if message.get("role") not in ("system", "user", "assistant"):
            raise MessageError(f"messages[{number}].role is {message.get('role')!r}; use system, user or assistant")
    return [(message["role"], _parts(_said(message), number)) for number, message in enumerate(messages)]


def _said(message: Message) -> object:
    """The content; blanks around the assistant's words are none of them."""
    content = message.get("content")
    return content.strip() if message["role"] == "assistant" and isinstance(content, str) else content


def _parts(content: object, number: int) -> list[tuple[str, str | None]]:
    """(text, None) or ("", image URL) for every part of a message's content."""
    if isinstance(content, str):
        return [(content, None)]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise MessageError(f"messages[{number}].content must be a string or a list of parts")
    out: list[tuple[str, str | None]] = []
    for place, part in enumerate(content):
        where = f"messages[{number}].content[{place}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            text = part.get("text")
            if not isinstance(text, str):
                raise MessageError(f"{where}.text must be a string")
            out.append((text, None))
        elif kind == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, Mapping) else image
            if not isinstance(url, str):
                raise MessageError(f"{where}.image_url.url must be a data: URL")
            out.append(("", url))
        else:
            raise MessageError(f"{where} has type {kind!r}; this model takes parts of type text and image_url")
    return out
