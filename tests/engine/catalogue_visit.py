"""A visit to the catalogue's page with a real browser: `python catalogue_visit.py PLAN`, in the environment of
dev/browser.lock.

PLAN is JSON: ``pages`` (name -> file), ``browser`` (a program), ``environment``, ``folder`` for the pictures taken,
``cases`` (a file: name of a page -> a list of [names of cards, driver]), ``hostile`` (a card's name). What was seen
goes to stdout; what the pages decided, to ``cases`` with ".decided" behind its name.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.engine.demo_visit import CONTRAST

DECIDE = "(cases) => cases.map(([names, driver]) => window.cardstock.decide(names, driver))"
AT_ONCE = 5000  # cases
TEXTS = ("h1", ".lead", ".state", ".how", "legend", "label", "dt", "dd", "pre code", "summary", "td", "th", "footer")


def visit(plan: dict[str, Any]) -> dict[str, Any]:
    """All of it, one after the other."""
    seen: dict[str, Any] = {"asked": [], "errors": [], "dialogs": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=plan["browser"], args=["--no-sandbox"], env={**os.environ, **plan["environment"]}
        )
        seen["keyboard"] = keyboard(browser, plan, seen)
        seen["hostile"] = hostile(browser, plan, seen)
        for scheme in ("light", "dark"):
            seen[f"narrow-{scheme}"] = narrow(browser, plan, seen, scheme)
        wide(browser, plan, seen)
        decided(browser, plan, seen)
        browser.close()
    return seen


def opened(
    browser: Browser, plan: dict[str, Any], seen: dict[str, Any], name: str, place: str = "", **how: Any
) -> Page:
    """A page, with what it asks for and what goes wrong noted."""
    context = browser.new_context(**how)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    address = Path(plan["pages"][name]).as_uri()
    page.on("request", lambda asked: seen["asked"].append(asked.url) if not asked.url.startswith(address) else None)
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("console", lambda said: seen["errors"].append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: (seen["dialogs"].append(dialog.message), dialog.dismiss()))
    page.goto(address + place)
    expect(page.locator("#ask")).to_be_visible()
    return page


def keyboard(browser: Browser, plan: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """From the page's beginning to a copied line, no mouse touched."""
    page = opened(browser, plan, seen, "published", viewport={"width": 1100, "height": 900})
    out: dict[str, Any] = {"path": []}

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            here, line = page.evaluate(
                """() => [document.activeElement.labels?.[0]?.textContent || document.activeElement.ariaLabel
                  || document.activeElement.textContent, getComputedStyle(document.activeElement).outlineWidth]"""
            )
            if here.startswith(name):
                out["path"].append([name, line])
                return
        raise AssertionError(f"no Tab leads to {name}")

    tab_to("Card")
    page.keyboard.type("4090")
    tab_to("Add a card")
    page.keyboard.press("Enter")
    page.keyboard.type("GTX 980")  # the new box has the focus
    tab_to("Remove")
    page.keyboard.press("Enter")
    tab_to("Driver")
    page.keyboard.type("550")
    expect(page.locator("article li").first).to_contain_text("driver 550 is too old")  # a moment after the last key
    out["said"] = page.locator("#said").inner_text()
    out["live"] = page.locator("#said").get_attribute("aria-live")
    out["answer"] = page.locator("article").inner_text()
    out["line"] = page.locator(".line pre").last.inner_text()
    tab_to("Copy: docker run")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("The line is copied.")
    out["copied"] = page.evaluate("() => navigator.clipboard.readText()")
    out["address"] = page.url.partition("#")[2]
    page.close()
    return out


def hostile(browser: Browser, plan: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """A card whose name is markup: typed, answered, in the address, among suggestions."""
    page = opened(browser, plan, seen, "hostile", viewport={"width": 1100, "height": 900})
    page.locator("#card-1").fill(plan["hostile"])
    expect(page.locator("article")).to_have_count(1)
    out = {"for": page.locator("article dd").first.inner_text(), "images": page.locator("img").count()}
    page.screenshot(path=Path(plan["folder"]) / "hostile.png")
    page.locator("#card-1").fill(plan["hostile"][:-4])
    expect(page.locator(".near button")).to_have_count(1)
    out["near"] = page.locator(".near button").inner_text()
    out["refused"] = page.locator(".refused h2").inner_text()
    page.reload()
    out["scripts"] = page.locator("script").count()
    page.close()
    return out


def narrow(browser: Browser, plan: dict[str, Any], seen: dict[str, Any], scheme: str) -> dict[str, Any]:
    """On a phone: nothing is wider than it, and all can be read."""
    size = {"width": 390, "height": 844}
    page = opened(browser, plan, seen, "recommended", "#card=RTX+4090", viewport=size, color_scheme=scheme)
    expect(page.locator("article")).to_have_count(1)
    out = {
        "width": page.evaluate("() => document.documentElement.scrollWidth"),
        "contrasts": {place: page.evaluate(CONTRAST, place) for place in TEXTS},
        "ground": page.evaluate("() => getComputedStyle(document.body).backgroundColor"),
        "state": page.locator(".state").first.inner_text(),
    }
    page.screenshot(path=Path(plan["folder"]) / f"narrow-{scheme}.png")
    page.goto(page.url.partition("#")[0] + "#card=T4&driver=390")
    page.reload()
    expect(page.locator(".refused")).to_have_count(1)
    out["refused"] = page.locator(".refused").inner_text()
    out["contrasts"]["refused"] = page.evaluate(CONTRAST, ".refused h2")
    page.close()
    return out


def wide(browser: Browser, plan: dict[str, Any], seen: dict[str, Any]) -> None:
    """Pictures to look at."""
    for name, place in {"start": "", "answer": "#card=RTX+4090&driver=550", "mixed": "#card=T4&card=GTX+980"}.items():
        page = opened(browser, plan, seen, "recommended", place, viewport={"width": 1000, "height": 900})
        page.screenshot(path=Path(plan["folder"]) / f"{name}.png")
        page.close()


def decided(browser: Browser, plan: dict[str, Any], seen: dict[str, Any]) -> None:
    """What the pages decide in every case."""
    found: dict[str, list[Any]] = {}
    for name, cases in json.loads(Path(plan["cases"]).read_text(encoding="utf-8")).items():
        page = opened(browser, plan, seen, name)
        found[name] = []
        for at in range(0, len(cases), AT_ONCE):
            found[name] += page.evaluate(DECIDE, cases[at : at + AT_ONCE])
        page.close()
    Path(f"{plan['cases']}.decided").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    print(json.dumps(visit(json.loads(sys.argv[1]))))
