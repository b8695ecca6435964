"""OpenAI's chat API, as far as this server takes it: the forms of a request, and a request as a `Chat`.

pydantic checks what comes against these forms, and /openapi.json describes them. Fields that are not named here are
ignored, as OpenAI's clients expect; those that would change the answer and are not supported are named and refused.
What only this server can say (its models, its longest sequence, how many pictures) is checked in `to_chat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Image, Message, Sampling  # type: ignore[import-not-found,unused-ignore]
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic_core import PydanticCustomError

MAX_STOPS, MAX_STOP_LENGTH, MAX_TOP_LOGPROBS = 4, 1024, 20
# Texts and pictures of a whole conversation: far more than people send, few enough to be checked at once.
MAX_PARTS = 8192


class Form(BaseModel):
    """Types as JSON has them: no text for a number, no number for true."""

    model_config = ConfigDict(strict=True, frozen=True)


def _refuse(value: Any) -> Any:
    if value:
        raise PydanticCustomError("unsupported", "is not supported")
    return value


def _url_as_object(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _text_as_part(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("text_or_parts", "must be a text or a list of parts")
    return value


def _refuse_many(messages: Any) -> Any:
    turns = messages if isinstance(messages, list) else []
    contents = (turn.get("content") if isinstance(turn, dict) else None for turn in turns)
    count = sum(len(content) if isinstance(content, list) else 1 for content in contents)
    if count > MAX_PARTS:
        raise PydanticCustomError("too_many_parts", "hold {count} parts, at most {most} are taken",
                                  {"count": count, "most": MAX_PARTS})  # fmt: skip
    return messages


def _stop_as_list(value: Any) -> Any:
    if value is not None and not isinstance(value, str | list):
        raise PydanticCustomError("text_or_list", "must be a text or a list of texts")
    return [value] if isinstance(value, str) else value


# Only a value that is empty (null, false, [], {}) passes: clients send those without meaning anything by it.
Unsupported = Annotated[Any, AfterValidator(_refuse), Field(description="Not supported: leave it out, or empty.")]
FullText = Annotated[str, Field(min_length=1)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class TextPart(Form):
    """Text in a message."""

    type: Literal["text"]
    text: str = Field(description="The text.")


class ImageUrl(Form):
    """Where a picture is."""

    url: FullText = Field(description="data:image/…;base64,…, or http(s)://… where the server fetches pictures.")


class ImagePart(Form):
    """A picture in a user's message."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_url_as_object, json_schema_input_type=ImageUrl | str)] = Field(
        description="The picture: an object with its URL, or the URL alone."
    )


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(Form):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="Who speaks; developer is the same as system."
    )
    content: Annotated[
        list[Part], FailFast(), BeforeValidator(_text_as_part, json_schema_input_type=str | list[Part])
    ] = Field(min_length=1, description="A text, or parts in order; only a user's message may hold pictures.")


class StreamOptions(Form):
    """What a stream has besides the answer."""

    include_usage: bool | None = Field(None, description="End the stream with the numbers of tokens.")


class ResponseFormat(Form):
    """The form of the answer."""

    type: Literal["text"] = Field(description="Only text: JSON modes are not supported.")


class ChatRequest(Form):
    """A request for a chat completion."""

    model: str = Field(description="A name that /v1/models lists.")
    messages: Annotated[list[ChatMessage], FailFast(), BeforeValidator(_refuse_many)] = Field(
        min_length=1, description=f"The conversation so far, the oldest first; up to {MAX_PARTS} texts and pictures."
    )
    temperature: float | None = Field(
        None, ge=0, le=2, allow_inf_nan=False, description="0 takes the likeliest token; default: the model's own."
    )
    top_p: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="Share of probability to choose from; default: the model's."
    )
    top_k: int | None = Field(
        None, ge=0, le=2**31, description="How many tokens to choose from, 0 for all; default: the model's own."
    )
    repetition_penalty: float | None = Field(
        None,
        ge=0.01,
        le=10,
        allow_inf_nan=False,
        description="Above 1: what was said gets rarer; default: the model's.",
    )
    max_tokens: int | None = Field(None, ge=1, description="Longest answer, in tokens; default: what fits.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same under its newer name, which wins.")
    stop: Annotated[
        list[StopText] | None,
        FailFast(),
        BeforeValidator(_stop_as_list, json_schema_input_type=StopText | list[StopText] | None),
    ] = Field(
        None,
        max_length=MAX_STOPS,
        description=f"A text, or up to {MAX_STOPS}, of {MAX_STOP_LENGTH} characters each; the answer ends before it.",
    )
    seed: int | None = Field(
        None, ge=-(2**63), le=2**63 - 1, description="The same seed and request give the same answer."
    )
    logprobs: bool | None = Field(None, description="Tell the log-probability of each token.")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description="With logprobs: how many likely tokens to tell for each."
    )
    stream: bool | None = Field(None, description="Answer piece by piece, as server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="With stream: what it has besides the answer.")
    n: Literal[1] | None = Field(None, description="Number of answers: one.")
    response_format: ResponseFormat | None = Field(None, description="Form of the answer: text.")
    tools: Unsupported = None
    functions: Unsupported = None
    audio: Unsupported = None
    logit_bias: Unsupported = None


def to_chat(
    asked: ChatRequest, models: Sequence[str], defaults: Sampling, longest: int, max_images: int, max_text: int
) -> Chat:
    """The request as a `Chat`. ``longest``: tokens of the model's longest sequence; ``max_text``: letters of all texts.

    Raises ApiError: 404 for a model that is not served here, 413 for too much text, 400 for what does not go together
    or with this server.
    """
    if asked.model not in models:
        known = ", ".join(models)
        raise ApiError(404, f"the model {asked.model[:100]!r} does not exist here: this server has {known}",
                       param="model", code="model_not_found")  # fmt: skip
    options = asked.stream_options or StreamOptions()
    messages = tuple(_message(message, index) for index, message in enumerate(asked.messages))
    sampling = _sampling(asked, defaults, longest)
    chat = Chat(asked.model, messages, sampling, bool(asked.stream), bool(options.include_usage))
    if (letters := chat.letters()) > max_text:
        raise ApiError(413, f"the messages have {letters} characters; {max_text} are taken (CARDSTOCK_MAX_TEXT_MB)",
                       param="messages", code="request_too_large")  # fmt: skip
    if len(chat.images()) > max_images:
        raise ApiError(400, f"{len(chat.images())} pictures, at most {max_images} are taken", param="messages")
    return chat


def _message(message: ChatMessage, index: int) -> Message:
    role = "system" if message.role == "developer" else message.role
    parts = tuple(part.text if isinstance(part, TextPart) else Image(part.image_url.url) for part in message.content)
    if role != "user" and any(isinstance(part, Image) for part in parts):
        raise ApiError(400, f"messages[{index}]: only a user's message may hold pictures", param="messages")
    return Message(role, parts)


def _sampling(asked: ChatRequest, defaults: Sampling, longest: int) -> Sampling:
    name = "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens"
    max_tokens: int | None = getattr(asked, name)
    if max_tokens is not None and max_tokens > longest:
        raise ApiError(400, f"{name} must be at most {longest}, this model's longest sequence", param=name)
    if asked.top_logprobs and not asked.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    return Sampling(
        temperature=_given(asked.temperature, defaults.temperature),
        top_p=_given(asked.top_p, defaults.top_p),
        top_k=_given(asked.top_k, defaults.top_k),
        repetition_penalty=_given(asked.repetition_penalty, defaults.repetition_penalty),
        max_tokens=_given(max_tokens, defaults.max_tokens),
        stop=tuple(asked.stop or ()),
        seed=asked.seed,
        logprobs=bool(asked.logprobs),
        top_logprobs=asked.top_logprobs or 0,
    )


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
