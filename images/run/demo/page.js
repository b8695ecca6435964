// Beside gradio's own: words for its icons, and files dropped anywhere on the page.
"use strict";
(() => {
  const WORDS = {
    Clear: ["Clear", "Forget this conversation"],
    "Copy message": ["Copy", "Copy this answer"],
    "Copied message": ["Copied", "Copied"],
    Retry: ["Ask again", "Ask the same question again"],
    Undo: ["Undo", "Take the last question back"],
    Download: ["Save", "Save this picture"],
    Fullscreen: ["", "Show it large"],
    "Upload a file": ["", "Add pictures or a video"],
    Submit: ["", "Send the question"],
    Stop: ["", "Stop the answer"],
  };
  const name = (button) => {
    const [word, tip] = WORDS[button.getAttribute("aria-label")] ?? [];
    if (tip === undefined) return;
    if (button.dataset.word !== word) button.dataset.word = word;  // page.css draws it
    if (button.title !== tip) button.title = tip;
  };
  let said = "", hint = "";
  const label = () => {
    document.querySelectorAll("button[aria-label]").forEach(name);
    const box = document.querySelector("#question textarea");
    if (box && !box.hasAttribute("aria-label")) {
      box.setAttribute("aria-label", "Your question");
      box.setAttribute("aria-describedby", "how");
    }
    // gradio takes the hint out of the box for an answer, and does not put it back.
    if (box?.placeholder) hint = box.placeholder;
    else if (box && hint) box.placeholder = hint;
    const under = document.querySelector("#under");
    if (under && !under.hasAttribute("aria-live")) under.setAttribute("aria-live", "polite");
    if (under && said !== under.textContent) {  // the buttons of an answer come with its end
      said = under.textContent;
      const ends = document.querySelectorAll("#conversation, #conversation [role=log]");
      if (said.includes("first token")) setTimeout(() => ends.forEach((one) => { one.scrollTop = one.scrollHeight; }), 200);
    }
    document.querySelectorAll("#conversation .example-image").forEach((image) => {
      if (image.alt) image.alt = "";  // a file's name says nothing beside the question
    });
  };
  new MutationObserver(label).observe(document, {subtree: true, childList: true, attributeFilter: ["aria-label", "placeholder"]});

  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const mark = () => document.querySelector("#question")?.toggleAttribute("data-drop", depth > 0);
  addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; mark(); } });
  addEventListener("dragleave", (event) => { if (files(event)) { depth = Math.max(0, depth - 1); mark(); } });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    depth = 0;
    mark();
    if (!files(event)) return;
    event.preventDefault();  // else the browser would leave the page and show the file
    const input = document.querySelector("#question input[type=file]");
    if (event.target.closest?.("#question") || !input) return;  // gradio takes those
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  });
})();
