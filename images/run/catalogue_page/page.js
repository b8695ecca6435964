// Looks answers up in the tables that Python has made; nothing is decided here. All text goes in as text, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [CARD, DRIVER, NAME] = data.marks;
  const find = (id) => document.getElementById(id);

  const plain = (name) =>
    name.toLowerCase().replaceAll("-", " ").replaceAll("nvidia", " ").trim().split(/\s+/).join(" ");
  const quoted = (text) => {  // as Python's repr()
    const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
    const inner = text.replaceAll("\\", "\\\\");
    return mark + (mark === "'" ? inner.replaceAll("'", "\\'") : inner) + mark;
  };
  const filled = (sentence, values) =>
    sentence.replace(/[\ue000-\ue002]/g, (mark) => values[mark] ?? mark);
  const said = (place, values) => {
    const [what, cause, instead] = data.texts[place].map((sentence) => filled(sentence, values));
    return {what, cause, do: instead};
  };

  const below = (one, other) => {  // as Python compares tuples
    for (let at = 0; at < Math.min(one.length, other.length); at += 1) {
      if (one[at] !== other[at]) return one[at] < other[at];
    }
    return one.length < other.length;
  };
  const readDriver = (text) => {
    if (!text.trim()) return {step: 0, text: ""};
    if (!/^[0-9]{3}(\.[0-9]{1,3}){0,2}$/.test(text.trim())) {
      return {error: said(data.unknown[1], {[NAME]: quoted(text)})};
    }
    const parts = text.trim().split(".").map(Number);
    const newest = parts.length < 3 ? [...parts, 999] : parts;  // a part of a version means the newest of it
    const passed = data.steps.filter((step) => !below(newest, step)).length;
    const [branch, ...rest] = parts;
    return {step: passed + 1, text: [branch, ...rest.map((part) => String(part).padStart(2, "0"))].join(".")};
  };

  // {images: [{variant, cards, notes}], refused: [{card, what, cause, do}]}, or {error: {what, cause, do}}.
  const decide = (names, driverText) => {
    const driver = readDriver(driverText);
    if (driver.error) return {error: driver.error};
    const places = new Set();
    for (const name of names) {
      const found = Object.hasOwn(data.names, plain(name)) ? data.names[plain(name)] : [-1, data.unknown[0]];
      if (typeof found !== "number") return {error: said(found[1], {[NAME]: quoted(name)}), name};
      places.add(found);
    }
    const refused = [];
    const served = new Map();  // capability -> cards
    for (const place of [...places].sort((one, other) => one - other)) {
      const [name, arch, , own] = data.cards[place];
      const why = own >= 0 ? own : data.refused[arch][driver.step];
      if (why >= 0) refused.push({card: name, ...said(why, {[CARD]: name, [DRIVER]: driver.text})});
      else served.set(arch, [...(served.get(arch) ?? []), place]);
    }
    const archs = [...served.keys()].sort((one, other) => one - other);
    if (!archs.length) return {images: [], refused};
    if (archs.length > data.most) return {tooMany: true};
    const given = data.texts[data.sets[data.given[driver.step]][archs.join(",")]];
    const images = given.map(([variant, which, notes]) => ({
      variant,
      places: which.flatMap((at) => served.get(archs[at])),
      notes: notes.map((note) => filled(note, {[DRIVER]: driver.text})),
    }));
    return {images: images.map((one) => ({...one, cards: one.places.map((at) => data.cards[at][0])})), refused};
  };

  const make = (tag, properties, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties ?? {})) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const copyLine = (line) => {
    // A word stays whole where there is room for it: lines break between words.
    const words = line.split(" ").flatMap((word, at) => [...(at ? [" "] : []), make("span", {}, word)]);
    const shown = make("pre", {}, make("code", {}, ...words));
    const button = make("button", {type: "button", "aria-label": `Copy: ${line}`}, "Copy");
    button.addEventListener("click", async () => {
      let done = false;
      try {
        await navigator.clipboard.writeText(line);
        done = true;
      } catch {
        getSelection().selectAllChildren(shown);  // where the clipboard is closed to the page, as in some files
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Press Ctrl+C";
      find("said").textContent = done ? "The line is copied." : "The line is selected: press Ctrl+C.";
    });
    return make("div", {class: "line"}, shown, button);
  };

  const fact = (name, ...value) => [make("dt", {}, name), make("dd", {}, ...value)];
  const number = (count) => count.toLocaleString("en");
  const answer = ([cards, first, seqs]) => {
    if (!cards) return make("td", {class: "no"}, `does not fit: ${first}`);
    const on = cards > 1 ? `on ${cards} of them: ` : "";
    const together = seqs > 1 ? `, ${number(seqs)} at a time` : ", one at a time";
    return make("td", {}, `${on}conversations of ${number(first)} tokens${together}`);
  };
  const fits = (place, variant, alone) => {
    const [name, arch, memory] = data.cards[place];
    const row = data.fitRows[data.fits[variant]?.[`${arch}/${memory}`]];
    if (!row) return [];
    const tables = data.families.map((family, at) => {
      const rows = data.models.flatMap((model, number) => (model.family !== family ? [] : [
        make("tr", {}, make("th", {scope: "row"}, make("code", {}, model.name)),
          answer(data.texts[row[number]].map((one) => (typeof one === "string" ? filled(one, {[CARD]: name}) : one)))),
      ]));
      const table = make("table", {}, make("tbody", {}, ...rows));
      const fold = make("details", at ? {} : {open: ""}, make("summary", {}, family), table);
      return fold;
    });
    return [make("h3", {}, `What ${name} serves with it${alone ? "" : ", by itself"}`),
      make("p", {class: "how"}, "By the sum that fit makes; a token is a short word or a piece of a longer one, and a " +
        "picture takes some hundreds to 1,280."), ...tables];
  };

  const imageOf = (one) => {
    const about = data.images[one.variant];
    const seen = [about.evidence + (about.day ? `, ${about.day}` : "")];
    if (about.record) seen.push(" (", make("a", {href: about.record}, "its record"), ")");
    const facts = [
      ...fact("For", one.cards.join(", ")),
      ...fact("Driver from", about.driver || "none"),
      ...fact("Size", about.size),
      ...fact("Evidence", ...seen),
      ...(about.acted ? fact("Acted as", about.acted) : []),
      ...fact("Known holes", about.advisories),
      ...(about.digest ? fact("Digest", make("code", {}, about.digest)) : []),
    ];
    const notes = [...one.notes, ...about.notes].map((note) => make("li", {}, note));
    const how = data.published ? "Run it" : "Build it, then run it";
    return make("article", {}, make("h2", {}, make("code", {}, one.variant)), make("dl", {}, ...facts),
      ...(notes.length ? [make("ul", {}, ...notes)] : []), make("h3", {}, how), ...about.lines.map(copyLine),
      ...one.places.flatMap((place) => fits(place, one.variant, one.places.length === 1)));
  };
  const refusal = (one) => make("div", {class: "refused"}, make("h2", {}, one.what),
    make("dl", {}, ...fact("Cause", one.cause), ...fact("What to do", one.do)));

  const near = (name) => {  // cards whose names have all the words
    const words = plain(name).split(" ").filter(Boolean);
    const found = data.cards.filter(([card]) => words.every((word) => plain(card).includes(word)));
    return words.length ? found.slice(-8).map(([card]) => card) : [];
  };

  const inputs = () => [...document.querySelectorAll("input.card")];
  const show = () => {
    const given = inputs().map((one) => one.value).filter((text) => text.trim());
    const driver = find("driver").value;
    const place = new URLSearchParams([...given.map((name) => ["card", name]), ...(driver ? [["driver", driver]] : [])]);
    history.replaceState(null, "", given.length || driver ? `#${place}` : "#");
    const out = find("answer");
    out.replaceChildren();
    if (!given.length) {
      find("said").textContent = "";
      return;
    }
    const found = decide(given, driver);
    if (found.tooMany) {
      find("said").textContent = `This page takes cards of ${data.most} compute capabilities; ./inv cards takes more.`;
    } else if (found.error) {
      find("said").textContent = found.error.what;
      out.append(refusal(found.error));
      const names = found.name === undefined ? [] : near(found.name);
      if (names.length) {
        const buttons = names.map((name) => {
          const button = make("button", {type: "button"}, name);
          button.addEventListener("click", () => {
            const input = inputs().find((one) => one.value === found.name);
            input.value = name;
            show();
            input.focus();
          });
          return make("li", {}, button);
        });
        out.append(make("h2", {}, "Did you mean"), make("ul", {class: "near"}, ...buttons));
      }
    } else {
      const each = found.images.map((one) => `${one.cards.join(", ")}: ${one.variant}`);
      find("said").textContent = [...each, ...found.refused.map((one) => one.what)].join("; ");
      if (found.images.length > 1) {
        out.append(make("p", {class: "state"}, "No image covers all of these cards: one for each kind of card."));
      }
      out.append(...found.images.map(imageOf), ...found.refused.map(refusal));
    }
  };

  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 250);
  };
  const more = (text = "") => {
    const count = inputs().length + 1;
    if (count > data.most) return;
    const id = `card-${count}`;
    const input = make("input", {id, class: "card", list: "names", autocomplete: "off", spellcheck: "false",
      maxlength: "100", placeholder: "such as T4"});
    input.value = text;
    const away = make("button", {type: "button", "aria-label": `Remove card ${count}`}, "Remove");
    const row = make("div", {class: "row"}, make("label", {for: id}, `Card ${count}`), input, away);
    away.addEventListener("click", () => {
      row.remove();
      inputs().forEach((one, at) => {
        one.id = `card-${at + 1}`;
        const label = one.parentElement.querySelector("label");
        label.htmlFor = one.id;
        if (at) label.textContent = `Card ${at + 1}`;
        one.parentElement.querySelector("button")?.setAttribute("aria-label", `Remove card ${at + 1}`);
      });
      find("more").hidden = false;
      find("card-1").focus();
      show();
    });
    find("cards").append(row);
    find("more").hidden = count >= data.most;
    if (!text) input.focus();
  };

  find("names").append(...data.cards.map(([name]) => make("option", {value: name})));
  find("ask").addEventListener("input", soon);
  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  find("more").addEventListener("click", () => more());
  const asked = new URLSearchParams(location.hash.slice(1));
  const [first, ...others] = asked.getAll("card").slice(0, data.most);
  find("card-1").value = first ?? "";
  others.forEach(more);
  find("driver").value = asked.get("driver") ?? "";
  find("ask").hidden = false;
  show();
  globalThis.cardstock = {decide};  // for tests: the answer without the page
})();
