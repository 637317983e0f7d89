// A control for every knob that studio/ui/tune_form.py describes: label, control, one sentence of help.
(() => {
  const studio = window.studio, { element: make, button, say } = studio;
  const shown = (choice) => (choice === true
    ? say("on")
    : choice === false ? say("off") : say(String(choice)));
  const plain = (value) => (Array.isArray(value) ? value.join(", ") : value == null ? "" : String(value));

  // A knob's title; a word that means something else on a button is kept apart as "word|knob".
  const title = (knob) => {
    const apart = say(`${knob.title}|knob`);
    return apart.endsWith("|knob") ? say(knob.title) : apart;
  };

  // What was typed, as the value the order wants; undefined: left out.
  const parsed = (knob, text) => {
    const word = text.trim();
    if (word === "") return knob.empty || knob.default == null ? null : undefined;
    if (knob.kind === "integer" || knob.kind === "number") {
      if (knob.auto && word === "auto") return "auto";
      // a wrong word travels on, and is refused in words
      return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(word) ? Number(word) : word;
    }
    if (knob.numeric && /^[-+]?(\d+\.?\d*|\.\d+)$/.test(word)) return Number(word);
    if (knob.kind === "list")
      return word.split(knob.choices ? /[\s,]+/ : /\n/).map((one) => one.trim()).filter(Boolean);
    return word;
  };

  const choice = (knob, id, value, change) => {
    const options = knob.choices.map((one) => make("option", { value: JSON.stringify(one), selected: one === value },
      shown(one)));
    return make("select", { id, onchange: (event) => change(JSON.parse(event.target.value)) }, options);
  };
  const toggle = (knob, id, value, change) => make("button",
    { id, class: "switch", role: "switch", "aria-checked": String(Boolean(value)),
      onclick: (event) => {
        const on = event.currentTarget.getAttribute("aria-checked") !== "true";
        event.currentTarget.setAttribute("aria-checked", String(on));
        change(on);
      }
    });
  const line = (knob, id, value, change, hint) => {
    const number = knob.kind === "integer" || knob.kind === "number";
    const made = knob.kind === "list" && !knob.choices
      ? make("textarea", { id, rows: 3, placeholder: say("one a line") }, (value || []).join("\n"))
      : make("input",
        {
          id, type: "text", inputMode: number ? "decimal" : "text", class: number ? "num" : "", value: plain(value),
          spellcheck: "false",
          autocomplete: "off", placeholder: hint ?? (knob.auto ? "auto" : knob.empty ? say("left out") : "") });
    if (knob.suggestions || (knob.kind === "list" && knob.choices)) {
      const list = make("datalist", { id: `${id}-list` },
        (knob.suggestions || knob.choices).map((one) => make("option", { value: one })));
      made.setAttribute("list", list.id);
      made.append(list);
      queueMicrotask(() => made.after(list));
    }
    made.addEventListener("change", () => change(parsed(knob, made.value)));
    made.addEventListener("input", () => {
      clearTimeout(made.later);
      made.later = setTimeout(() => change(parsed(knob, made.value)), 500);
    });
    return made;
  };

  // field(knob, path, {hint, reread}): the whole field. hint: shown in an empty control.
  studio.field = (knob, path, { hint } = {}) => {
    const id = `knob-${path.replace(/\W/g, "-")}`, given = studio.order.get(path);
    const value = given === undefined ? knob.default : given;
    const change = (wanted) => { studio.order.set(path, wanted, knob.default, "form"); mark(); };
    const control = knob.kind === "switch"
      ? toggle(knob, id, value, change)
      : knob.kind === "choice" ? choice(knob, id, value, change) : line(knob, id, value, change, hint);
    control.setAttribute("aria-describedby", `${id}-help`);
    const label = make("label", { for: id }, title(knob));
    const reset = button("plain reset", say("Reset"),
      () => { studio.order.set(path, undefined, knob.default, "reset"); document.getElementById(id)?.focus(); },
      { "aria-label": say("Reset {knob}", { knob: title(knob) }),
        title: knob.default == null || knob.default.length === 0
        ? say("Leave it out again")
        : say("Back to {value}", { value: shown(knob.default) }) });
    const taken = make("p", { class: "taken small" });
    const field = make("div", { class: `field field-${knob.kind}`, "data-path": path },
      make("div", { class: "field-head" }, label, reset), control, taken,
      make("p", { class: "help", id: `${id}-help` }, say(knob.help)));
    const mark = () => {
      const now = studio.order.get(path);
      field.classList.toggle("changed", now !== undefined && JSON.stringify(now) !== JSON.stringify(knob.default));
      field.tell();
    };
    field.tell = () => {
      const now = studio.order.get(path), found = (now ?? knob.default) === "auto" && autoValues[path];
      taken.hidden = !found;
      taken.replaceChildren(...(found ? told(found) : []));
    };
    mark();
    return field;
  };

  // What each auto comes to for this order, as the summary was told: {path: {value, why}}.
  let autoValues = {};
  const told = ({ value, why }) => [say("auto:"), " ",
    value != null && make("b", { class: "num" }, shown(value)), value != null && why && say(", "),
    studio.told(why)]
    .filter(Boolean);
  window.addEventListener("studio:summary", ({ detail }) => {
    autoValues = detail?.auto || {};
    for (const field of document.querySelectorAll("#tune .field[data-path]")) field.tell?.();
  });
  studio.knobTitle = title;

  // How many knobs behind the Advanced switch are set to something else.
  studio.changed = (knobs, section) => knobs.filter((knob) => knob.advanced
    && studio.order.get(`${section}.${knob.key}`) !== undefined
    && JSON.stringify(studio.order.get(`${section}.${knob.key}`)) !== JSON.stringify(knob.default)).length;

  // A row of buttons of which one is pressed: [[value, text]…].
  studio.segments = (label, choices, chosen, change) => make("div",
    { class: "segments", role: "group", "aria-label": say(label) },
    choices.map(([value,
      text]) => make("button", { "aria-pressed": String(value === chosen), onclick: () => change(value) }, say(text))));
})();
