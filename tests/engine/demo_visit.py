"""A visit to the demo page with a real browser: `python demo_visit.py PLAN`, in the environment of dev/browser.lock.

PLAN is JSON: ``url``, ``browser`` (a program), ``environment``, ``folder`` for the pictures taken, ``several`` and
``one`` (a question each: ``files``, ``text``), ``further`` (a text, asked after the first), ``broken`` and ``big`` (a
file each). What was seen goes to stdout.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect, sync_playwright

# Every text that the newest answer has had, in order; none at all before it begins.
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const bots = document.querySelectorAll('[data-testid=bot]');
    const text = bots.length ? bots[bots.length - 1].innerText.trim() : '';
    if (text !== window.seen.at(-1)) window.seen.push(text);
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
# An answer that has begun is whole when the box takes the next question.
WHOLE = """() => window.seen.includes('') && window.seen.at(-1)
  && !document.querySelector('textarea[data-testid=textbox]').disabled"""
SECONDS = 1000


class Visit:
    """One open page."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.box = page.locator("textarea[data-testid=textbox]").first

    def ask(self, files: list[str], text: str) -> list[str]:
        """Give files, ask, wait for the end; the states of the answer."""
        if files:
            self.page.set_input_files("input[type=file]", files)
            expect(self.page.locator(".thumbnail-item")).to_have_count(len(files), timeout=30 * SECONDS)
        self.box.fill(text)
        self.page.evaluate("() => { window.seen.length = 0 }")
        self.box.press("Enter")
        return self.answer()

    def answer(self) -> list[str]:
        """Wait for the end of an answer; its states."""
        self.page.wait_for_function(WHOLE, timeout=120 * SECONDS)
        return list(self.page.evaluate("() => window.seen.slice(window.seen.lastIndexOf('') + 1)"))

    def again(self) -> list[str]:
        """Press regenerate; the new answer's states."""
        self.page.evaluate("() => { window.seen.length = 0 }")
        self.page.get_by_label("Retry").last.click()
        return self.answer()

    def clear(self) -> int:
        """Press clear; the messages that are left."""
        self.page.get_by_label("Clear").first.click()
        expect(self.page.locator("[data-testid=bot]")).to_have_count(0)
        return int(self.page.locator("[data-testid=user]").count())

    def refused(self, file: str, text: str, message: str) -> str:
        """Give a file that is not taken, ask if need be; what is said about it."""
        self.page.set_input_files("input[type=file]", file)
        if text:
            expect(self.page.locator(".thumbnail-item")).to_have_count(1, timeout=30 * SECONDS)
            self.box.fill(text)
            self.box.press("Enter")
        found = self.page.locator(message).first
        expect(found).to_be_visible(timeout=30 * SECONDS)
        self.page.wait_for_timeout(0.7 * SECONDS)  # it fades in; the screenshot should have it
        return str(found.inner_text())

    def picture(self, name: str) -> None:
        """Keep what the page looks like."""
        self.page.screenshot(path=self.folder / name)


def visit(plan: dict[str, Any]) -> dict[str, Any]:
    """All of it, one after the other."""
    outside: list[str] = []
    seen: dict[str, Any] = {"outside": outside}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=plan["browser"],
            args=["--no-sandbox", "--no-proxy-server"],  # root in a container has no sandbox
            env={**os.environ, **plan["environment"]},
        )
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("request", lambda asked: _note(outside, asked.url, plan["url"]))
        page.goto(plan["url"], timeout=60 * SECONDS)
        page.evaluate(WATCH)
        here = Visit(page, Path(plan["folder"]))
        seen["several"] = here.ask(**plan["several"])
        here.picture("several.png")
        seen["again"] = here.again()
        seen["further"] = here.ask([], plan["further"])
        seen["left"] = here.clear()
        seen["one"] = here.ask(**plan["one"])
        here.picture("one.png")
        seen["broken"] = here.refused(plan["broken"], "What is this?", ".validation-error")
        seen["kept"] = here.box.input_value()
        here.picture("refused.png")
        seen["big"] = here.refused(plan["big"], "", "text=exceed the maximum")
        here.picture("too-large.png")
        browser.close()
    return seen


def _note(outside: list[str], asked: str, own: str) -> None:
    parts = urlsplit(asked)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(own).netloc:
        outside.append(asked)


if __name__ == "__main__":
    print(json.dumps(visit(json.loads(sys.argv[1]))))
