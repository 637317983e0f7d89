// A question in the middle of the page: a sentence, perhaps a field, and what to do. Closed by Escape; the focus goes back.
(() => {
  const studio = window.studio, make = studio.element;

  // {title, text, field: {label, value, long}, act: "Delete", grave: true} -> the field's value (or true), null when closed.
  studio.inquire = ({ title, text, field, act, grave, other }) => new Promise((answer) => {
    const entry = field && make(field.long ? "textarea" : "input", { class: "field", rows: field.long ? "4" : null, type: field.long ? null : field.type || "text", "aria-label": field.label });
    if (entry) entry.value = field.value ?? "";
    let said = null;
    const form = make("form", { method: "dialog" }, make("h3", {}, title), text && make("p", {}, text), entry && make("label", {}, make("span", {}, field.label), entry),
      make("div", { class: "dialogue-acts" }, make("button", { type: "button", class: "button", onclick: () => box.close() }, studio.say("Cancel")),
        other && make("button", { type: "button", class: `button ${other.grave ? "grave" : ""}`, onclick: () => { said = other.value; box.close(); } }, other.act),
        make("button", { type: "submit", class: `button ${grave ? "grave" : "primary"}`, onclick: () => { said = entry ? entry.value : true; } }, act)));
    const box = make("dialog", { class: "dialogue", onclose: () => { box.remove(); answer(said); } }, form);
    document.body.append(box);
    box.showModal();
    entry?.select?.();
  });

  // A refusal or a message at the foot of the page; gone after a while.
  studio.tell = (problem, kind = "bad") => {
    let shelf = document.querySelector(".tellings");
    if (!shelf) { shelf = make("div", { class: "tellings", role: "status" }); document.body.append(shelf); }
    const note = make("div", { class: `telling ${kind}` }, make("b", {}, studio.told(problem.message ?? String(problem))), problem.hint ? make("p", {}, studio.told(problem.hint)) : null,
      make("button", { type: "button", "aria-label": studio.say("Close"), onclick: () => note.remove() }, "×"));
    shelf.append(note);
    setTimeout(() => note.remove(), kind === "bad" ? 15000 : 5000);
  };
})();
