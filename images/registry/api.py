"""One repository's part of the OCI distribution API: requests with its login, their faults, and the words for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, TypeVar

from images.core import RegistryFailure, Unsafe
from images.registry.address import RepositoryAddress, without_query
from images.registry.advice import what_to_do
from images.registry.login import RegistryLogin
from images.registry.response import Response
from images.registry.retry import ATTEMPTS, Retry, TransientError
from images.registry.transport import Method, Transport

_VERBS: Mapping[Method, str] = {"GET": "give", "HEAD": "show", "PUT": "take", "POST": "take"}
_LOGINS = 2  # a token for more than the last one, and another where that ends at once
Result = TypeVar("Result")


class RepositoryApi:
    """Asks one registry about one repository. Its login is made when the registry wants one, and kept."""

    def __init__(self, address: RepositoryAddress, transport: Transport, retry: Retry) -> None:
        self.address, self.retry = address, retry
        self._transport = transport
        self._login = RegistryLogin(address, transport, retry.say)

    def repeat(self, what: str, once: Callable[[], Result]) -> Result:
        """What ``once`` gives, tried again while its faults may pass. Raises RegistryFailure where they last."""
        try:
            return self.retry.run(once)
        except TransientError as fault:
            asked = f"it asks to wait {_time(fault.wait)}" if fault.asks_too_long else f"{ATTEMPTS} attempts"
            raise RegistryFailure(
                f"{self.address.name}: the registry does not give or take {what}",
                cause=f"{fault} ({asked})",
                do=what_to_do(self.address.host, fault.status, str(fault), writes=False)
                or "see that its name is right and that it runs; run the same again to go on",
                where=self.address.registry,
            ) from fault

    def call(
        self,
        method: Method,
        place: str,
        headers: Mapping[str, str] | None = None,
        *,
        ok: Sequence[int],
        body: bytes | IO[bytes] | None = None,
    ) -> Response:
        """One request to a path of the repository, or to a URL, with a login if the registry wants one.

        Raises TransientError for a fault that may pass, RegistryFailure for an answer whose status is not ``ok``.
        """
        url = place if "://" in place else f"{self.address.url}/{place}"

        def ask() -> Response:
            sent = {**(headers or {}), **self._login.headers_for(url)}
            return self._transport.send(method, url, sent, body=body)

        told = ask()
        for _ in range(_LOGINS):
            if told.status not in (401, 403) or not self._login.is_own(told.url):
                break
            with told:
                answered = self._login.answer(told, method)
                refusal = None if answered or told.status in ok else self._refusal(told, method, place)
            if refusal:
                raise refusal
            if not answered:
                break
            told = ask()
        if told.status in ok:
            return told
        with told:
            raise told.fault() or self._refusal(told, method, place)

    def _refusal(self, told: Response, method: Method, place: str) -> RegistryFailure:
        login = told.status in (401, 403)
        reason = self._login.reason(told) if login else told.sends_to
        words = told.words()
        cause = f"HTTP {told.status}: {words}"
        return RegistryFailure(
            f"{self.address.name}: the registry refuses to {_VERBS[method]} {without_query(place)}",
            cause=f"{cause}; {reason}" if reason else cause,
            do=what_to_do(self.address.host, told.status, words, writes=method in ("PUT", "POST")),
            where=self.address.registry,
        )

    def unsafe(self, what: str, wanted: str, found: str) -> Unsafe:
        """The error for bytes that have another digest than they were asked by."""
        return Unsafe(
            f"{self.address.name}: {what} is not what its digest says",
            cause=f"asked for {wanted}, got {found}",
            do="do not use it; tell whoever runs this registry",
            where=self.address.registry,
        )


def _time(seconds: float | None) -> str:
    """A long time for a person: "365 days"."""
    hours = (seconds or 0.0) / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.1f} hours"
