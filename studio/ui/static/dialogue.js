// A question in the middle of the page: a sentence, perhaps a field, and what to do. Closed by Escape; the focus goes
// back.
(() => {
  const studio = window.studio, { element: make, button, say } = studio;

  // One line of a question: {label, value, long, type, step, choices: [[value, name]], note, shown}; note and shown are
  // functions of all values.
  const entryOf = ({ label, value, long, type, step, choices }) => {
    const entry = choices
      ? make("select", { class: "field", "aria-label": label },
        choices.map(([key, name]) => make("option", { value: key }, name)))
      : make(long ? "textarea" : "input", {
        class: "field", rows: long ? "4" : null, type: long ? null : type || "text", step: step || null,
        "aria-label": label
      });
    entry.value = value ?? "";
    return entry;
  };

  // {title, text, field, act: "Delete", grave: true} -> the field's value (or true), null when closed. fields, each
  // with a key: their values by key.
  studio.inquire = ({ title, text, field, fields, act, grave, other }) => new Promise((answer) => {
    const lines = (fields || (field ? [field] : [])).map((one) => ({
      one, entry: entryOf(one), note: one.note ? make("small", { class: "quiet" }) : null
    }));
    for (const line of lines) line.node = make("label", {}, make("span", {}, line.one.label), line.entry, line.note);
    const values = () => (fields
      ? Object.fromEntries(lines.map(({ one, entry }) => [one.key, entry.value]))
      : lines[0]?.entry.value ?? true);
    const draw = () => {
      for (const { one, node, note } of lines) {
        if (note) note.textContent = one.note(values());
        if (one.shown) node.hidden = !one.shown(values());
      }
    };
    let said = null;
    const form = make("form", { method: "dialog" }, make("h3", {}, title), text && make("p", {}, text),
      lines.map((line) => line.node),
      make("div", { class: "dialogue-acts" },
        button("button", say("Cancel"), () => box.close()),
        other && button(`button ${other.grave ? "grave" : ""}`, other.act, () => { said = other.value; box.close(); }),
        make("button",
          { type: "submit", class: `button ${grave ? "grave" : "primary"}`, onclick: () => { said = values(); } },
          act)));
    form.addEventListener("input", draw);
    draw();
    const box = make("dialog", { class: "dialogue", onclose: () => { box.remove(); answer(said); } }, form);
    document.body.append(box);
    box.showModal();
    if (field) lines[0].entry.select?.();
  });

  // A refusal or a message at the foot of the page; gone after a while.
  studio.tell = (problem, kind = "bad") => {
    let shelf = document.querySelector(".tellings");
    if (!shelf) { shelf = make("div", { class: "tellings", role: "status" }); document.body.append(shelf); }
    const note = make("div", { class: `telling ${kind}` },
      make("b", {}, studio.told(problem.message ?? String(problem))),
      problem.hint ? make("p", {}, studio.told(problem.hint)) : null,
      make("button", { "aria-label": say("Close"), onclick: () => note.remove() }, "×"));
    shelf.append(note);
    setTimeout(() => note.remove(), kind === "bad" ? 15000 : 5000);
  };
})();
