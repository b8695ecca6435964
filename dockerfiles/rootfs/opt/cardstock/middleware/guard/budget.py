"""A sum that all requests together may hold, such as bytes of bodies or pixels of pictures."""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """``most`` units; whoever takes some gives them back. For one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, units: int) -> bool:
        """Take them if they are there now and nobody waits for some."""
        if self._waiting or self.held + units > self.most:
            return False
        self.held += units
        return True

    async def wait(self, units: int, seconds: float) -> bool:
        """Take them as soon as they are there, first come first served; False where they are not in time."""
        if self.take(units):
            return True
        turn = asyncio.get_running_loop().create_future()
        entry = (units, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif turn.done() and not turn.cancelled():
                self.held -= units  # it came in the moment in which the wait ended
            self._pass_on()
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def give(self, units: int) -> None:
        """Give back what was taken."""
        self.held -= units
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting and self.held + self._waiting[0][0] <= self.most:
            units, turn = self._waiting.popleft()
            if not turn.done():
                self.held += units
                turn.set_result(None)
