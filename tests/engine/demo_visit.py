"""A visit to the demo page with a real browser: `python demo_visit.py PLAN`, in the environment of dev/browser.lock.

PLAN is JSON: ``url``, ``browser`` (a program), ``environment``, ``folder`` for the pictures taken, ``several`` and
``one`` (a question each: ``files``, ``text``), ``further`` (a text, asked after the first), ``broken`` and ``big`` (a
file each). What was seen goes to stdout.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

# Every text that the newest answer has had, in order; none at all before it begins.
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const bots = document.querySelectorAll('[data-testid=bot]');
    const text = bots.length ? bots[bots.length - 1].innerText.trim() : '';
    if (text !== window.seen.at(-1)) window.seen.push(text);
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
# An answer that has begun is whole when it is told how fast it was, and the box takes the next question.
WHOLE = """() => window.seen.includes('') && window.seen.at(-1)
  && document.querySelector('#under').innerText.includes('first token')
  && !document.querySelector('textarea[data-testid=textbox]').disabled"""
SECONDS = 1000
BORDER = "getComputedStyle(document.querySelector('#question')).borderTopStyle"
DRAG = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, {type: 'image/png'}));
  window.drag = (kind) => document.querySelector('#header').dispatchEvent(
    new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: carried}));
  window.drag('dragenter');
  window.drag('dragover');
}"""
WORDS = """() => [...document.querySelectorAll('#conversation .icon-button-wrapper button, #question button')]
  .filter((one) => one.checkVisibility())
  .map((one) => [one.ariaLabel, JSON.stringify([getComputedStyle(one, '::after').content, one.title])])"""
# Contrast of a text with what is behind it, by WCAG 2; elements between them may be clear.
CONTRAST = """(place) => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
      .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = (colour) => colour === 'transparent' || / 0\\)$/.test(colour);
  let behind = document.querySelector(place);
  const text = light(getComputedStyle(behind).color);
  while (behind.parentElement && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const ground = light(getComputedStyle(behind).backgroundColor);
  return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}"""
TEXTS = ("#header h1", "#how .prose", "#under span", ".example-text", "#conversation [data-testid=bot] p", "#about dt")


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

    def drop(self, file: str) -> str:
        """Drag a file over the page's header and let it go there; the border that showed where files go meanwhile."""
        name, content = Path(file).name, base64.b64encode(Path(file).read_bytes()).decode()
        self.page.evaluate(DRAG, [name, content])
        self.page.wait_for_function(f"() => {BORDER} === 'solid'")
        self.picture("drag.png")
        border = str(self.page.evaluate(f"() => {BORDER}"))
        self.page.evaluate("() => window.drag('drop')")
        expect(self.page.locator(".thumbnail-item")).to_have_count(1, timeout=30 * SECONDS)
        return border

    def press(self, name: str) -> str:
        """Tab until what is called so has the focus, then Enter; how thick the line around it was."""
        for _ in range(30):
            self.page.keyboard.press("Tab")
            if name in str(self.page.evaluate("() => document.activeElement.ariaLabel")):
                line = str(self.page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth"))
                self.page.evaluate("() => { window.seen.length = 0 }")
                self.page.keyboard.press("Enter")
                return line
        raise AssertionError(f"no Tab leads to {name}")

    def hint(self) -> str:
        """What the empty box says."""
        return str(self.box.get_attribute("placeholder"))

    def contrasts(self, *places: str) -> dict[str, float]:
        """Of texts that are there now, each with what is behind it."""
        shown = [place for place in places or TEXTS if self.page.locator(place).count()]
        return {place: float(self.page.evaluate(CONTRAST, place)) for place in shown}

    def words(self) -> dict[str, str]:
        """The buttons around the newest answer: their names, and the words that are drawn in them."""
        return dict(self.page.evaluate(WORDS))

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
        page.wait_for_function("() => document.querySelector('#question .upload-button')?.title")
        here.picture("start.png")
        seen["examples"] = page.locator(".example-text").all_inner_texts()
        seen["texts"] = page.locator("main").inner_text()
        seen["hints"] = [here.hint()]
        seen["contrasts"] = here.contrasts(".example-text")
        seen["focus"] = here.press("example 2")
        seen["example"] = here.answer()
        seen["hints"].append(here.hint())
        seen["focus-again"] = here.press("Retry")
        here.answer()
        seen["hints"].append(here.hint())
        seen["under"] = page.locator("#under").inner_text()
        seen["words"] = here.words()
        page.get_by_role("button", name="About this server").click()
        seen["about"] = page.locator("#about").inner_text()
        seen["contrasts"] |= here.contrasts()
        here.clear()
        seen["drop"] = here.drop(plan["one"]["files"][0])
        seen["dropped"] = here.ask([], plan["one"]["text"])
        here.clear()
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
        for scheme in ("light", "dark"):
            seen[f"narrow-{scheme}"] = narrow(browser, plan, scheme)
        browser.close()
    return seen


def narrow(browser: Browser, plan: dict[str, Any], scheme: Literal["light", "dark"]) -> dict[str, Any]:
    """The page on a phone: how wide it is after an answer, what can be read, how light its ground is."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.goto(plan["url"], timeout=60 * SECONDS)
    page.evaluate(WATCH)
    here = Visit(page, Path(plan["folder"]))
    page.wait_for_function("() => document.querySelector('#question .upload-button')?.title")
    here.picture(f"narrow-{scheme}-start.png")
    out: dict[str, Any] = {"contrasts": here.contrasts(".example-text"), "answer": here.ask(**plan["one"])}
    page.get_by_role("button", name="About this server").click()
    out["contrasts"] |= here.contrasts()
    out["width"] = page.evaluate("() => document.documentElement.scrollWidth")
    out["ground"] = page.evaluate("() => getComputedStyle(document.querySelector('gradio-app')).backgroundColor")
    here.picture(f"narrow-{scheme}.png")
    page.close()
    return out


def _note(outside: list[str], asked: str, own: str) -> None:
    parts = urlsplit(asked)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(own).netloc:
        outside.append(asked)


if __name__ == "__main__":
    print(json.dumps(visit(json.loads(sys.argv[1]))))
