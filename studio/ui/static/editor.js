// The data editor: any row changed in place, find and replace with a preview, fixes of one kind of problem, undo; saved
// as a new file.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const STANDARD = ["system", "user", "assistant", "tool"];
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  const COUNTED = {
    cells: ["1 cell changed", "{n} cells changed"], added: ["1 row added", "{n} rows added"],
    deleted: ["1 row deleted", "{n} rows deleted"],
    replacements: ["1 place replaced", "{n} places replaced"], mended: ["1 row mended", "{n} rows mended"] };
  const counted = studio.counted = (n, [one, many]) => say(n === 1 ? one : many, { n: number(n) });
  studio.editedCounts = (counts) => Object.entries(COUNTED).filter(([key]) => counts[key])
    .map(([key, texts]) => counted(counts[key], texts))
    .join(" · ");

  // saved(answer) is told of a new file, closed() that the editor was left.
  studio.editor = (server, { saved, closed }) => {
    const list = new studio.RowList({
      load: (options) => load(options), show: (row) => show(row), goTo: (row) => goTo(row),
      line: (one) => [make("span", { class: "row-text" }, one.text || "–"),
        one.added || one.changed
          ? make("i", { class: "dot edited", title: say(one.added ? "new" : "changed") })
          : one.fault ? make("i", { class: "dot suspicious", title: say("worth a look") }) : ""]
    });
    const view = make("div", { class: "edit-view" });
    const title = make("h2");
    const bar = make("div", { class: "edit-bar" });
    const notice = make("div", { class: "edit-notice", role: "status" });
    const finder = studio.editFinder({
      server, apply: (op) => step(op),
      names: () => [...new Set([...page.roles, ...page.columns])],
      open: (row) => goTo(row),
      renew: (revision) => (revision !== state.revision ? load({ quiet: true }) : null),
    });
    const verdict = make("div", { class: "edit-verdict" });
    const leave = make("button", { class: "button", onclick: () => close() });
    const element = make("section", { class: "card editor", hidden: true },
      make("div", { class: "rows-head" }, title, list.counter, leave), notice, bar, finder.form, finder.results,
      make("div", { class: "rows-columns" }, list.node, view));
    let state = { revision: 0, changes: 0, counts: {} };
    let page = { columns: [], roles: [] };
    let shown = null, asked = 0, looked = 0, going = Promise.resolve();
    const question = studio.question;

    // -- what was done, in words
    const did = (one) => ({
      set: () => (one.field
        ? say("{field} in row {n}", { field: one.field, n: one.row })
        : say("row {n}", { n: one.row })),
      add: () => say("a new row"),
      delete: () => (one.count > 1
        ? say("deletion of {n} rows", { n: number(one.count) })
        : say("deletion of row {n}", { n: one.row })),
      replace: () => say("{find} → {put}, {n} ×", { find: one.find, put: one.put || "∅", n: number(one.count) }),
      fix: () => counted(one.count,
        one.way === "delete"
          ? ["deletion of 1 row", "deletion of {n} rows"]
          : ["mending of 1 row", "mending of {n} rows"]),
    }[one.op] || (() => ""))();
    const tell = (problem) => notice.replaceChildren(...(problem ? [studio.fault(problem)] : []));

    // -- changes go one after the other, each with the revision that the one before it left
    const change = (op) => (going = going.then(async () => {
      try {
        const seen = { revision: state.revision, fingerprint: page.fingerprint };
        state = await studio.call("data_edit", question({ ...seen, change: op }));
        tell(null); drawBar();
        return state;
      } catch (problem) {
        tell(problem);
        await load({ quiet: true }); // what was typed stays where it stands
        return null;
      }
    }));
    const step = async (op) => {
      const answer = await change(op);
      if (!answer) return;
      finder.hide();
      if (answer.row != null) list.chosen = answer.row;
      await load({ around: answer.row });
    };

    // -- the bar: what is not saved
    const undo = make("button", { class: "button edit-undo", onclick: () => step({ op: "undo" }) });
    const redo = make("button", { class: "button edit-redo", onclick: () => step({ op: "redo" }) });
    const discard = make("button", { class: "button edit-discard", onclick: () => step({ op: "discard" }) });
    const keep = make("button", { class: "primary edit-save", onclick: () => save() });
    const count = make("p", { class: "edit-count" });
    bar.append(count, undo, redo, discard, keep);
    function drawBar() {
      const n = state.changes;
      count.replaceChildren(make("b", {},
        n ? counted(n, ["1 change, not saved", "{n} changes, not saved"]) : say("Nothing changed yet")),
        make("span", { class: "quiet small" },
          n ? studio.editedCounts(state.counts) : say("The file itself stays as it is; changes become a new file.")),
        state.unreadable > 0 && n > 0
          ? make("span", { class: "small warn-text" },
            counted(state.unreadable,
              ["1 row cannot be read and will not be in the new file.",
                "{n} rows cannot be read and will not be in the new file."]))
          : "");
      undo.textContent = state.undo ? say("Undo: {what}", { what: did(state.undo) }) : say("Undo");
      redo.textContent = state.redo ? say("Redo: {what}", { what: did(state.redo) }) : say("Redo");
      undo.disabled = !state.undo; redo.hidden = !state.redo; discard.disabled = keep.disabled = !n;
      discard.textContent = say("Discard all"); keep.textContent = say("Save as new file");
    }
    const save = () => (going = going.then(async () => {
      keep.disabled = true; keep.textContent = say("Saving…");
      try {
        const made = await studio.call("data_save",
          question({ revision: state.revision, fingerprint: page.fingerprint }));
        tell(null);
        clear();
        saved(made);
      } catch (problem) { tell(problem); drawBar(); }
    }));

    // -- the list
    async function load({ around = null, quiet = false } = {}) {
      const mine = (asked += 1);
      const answer = await server.edit_rows(question({ start: list.start, kind: list.kind, around }))
        .catch((problem) => ({ error: studio.trouble(problem) }));
      if (mine !== asked || element.hidden) return;
      if (answer.error) { tell(answer.error); return; }
      page = state = answer;
      title.textContent = say("Edit {name}", { name: page.from || "" }); leave.textContent = say("Leave the editor");
      list.node.setAttribute("aria-label", say("Rows; arrow keys go from one to the next, Enter edits"));
      list.take(answer); drawBar();
      if (quiet) return;
      const chosen = list.settle();
      if (chosen != null) await show(chosen); else {
        shown = null;
        view.replaceChildren(make("p", { class: "quiet" }, say("No row fits.")));
      }
    }
    function goTo(row) { list.chosen = row; list.kind = ""; load({ around: row }); }
    list.node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target !== list.node) return;
      event.preventDefault();
      view.querySelector("textarea")?.focus();
    });

    // -- one row
    async function show(row, fields = true) {
      const mine = (looked += 1);
      list.choose(row);
      const answer = await server.edit_row(question({ row })).catch((problem) => ({ error: studio.trouble(problem) }));
      if (mine !== looked || list.chosen !== row) return;
      if (answer.error) { view.replaceChildren(studio.fault(answer.error)); return; }
      shown = answer;
      if (fields) drawRow();
      drawVerdict();
    }
    // what: {value}, {typed: text} or {json: text}; or another operation in place of "set"
    const put = async (path, what, field) => {
      const row = shown.row, answer = await change({ op: "set", row, path, ...what });
      field?.classList.toggle("unsaved", !answer);
      if (!answer) return false;
      await load({ quiet: true });
      if (list.chosen === row) await show(row, !field);
      return true;
    };
    // A text that is changed in place: leaving it or Ctrl+Enter keeps the change, Esc takes it back.
    const area = (path, stored, label, read = (typed) => ({ typed })) => {
      let before = stored;
      const plain = () => before.replace(/\r\n?/g, "\n"); // as a text field holds it
      const field = make("textarea", {
        class: "cell", "aria-label": label, spellcheck: "true",
        rows: String(Math.min(14, Math.max(1, plain().split("\n").length, Math.ceil(before.length / 90))))
      });
      field.value = before;
      let sent = null; // Ctrl+Enter commits, and leaving the field then would once more
      const commit = async () => {
        if (field.value === plain()) { field.classList.remove("unsaved"); return; }
        if (field.value === sent) return;
        const text = sent = field.value;
        if (await put(path, read(text), field)) before = text;
        sent = null;
      };
      field.addEventListener("change", commit);
      field.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          field.value = before;
          field.classList.remove("unsaved");
          tell(null);
          list.node.focus();
        }
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          commit();
          const all = [...view.querySelectorAll("textarea")];
          (all[all.indexOf(field) + 1] || list.node).focus();
        }
      });
      return field;
    };
    // what is no text is shown and sent as the text of its JSON: numbers here would be rounded
    const json = (path, label, text = shown.texts[JSON.stringify(path)]) => make("div", { class: "json" },
      area(path, text, label, (json) => ({ json })));
    const cell = (path, value, label) => make("div", { class: "cell-box" }, make("b", {}, label),
      typeof value === "string" ? area(path, value, label) : json(path, label));

    function drawTurns({ path, who, said }, turns) {
      const at = turns.map((one) => one[who]), known = [...new Set([...page.roles, ...at])];
      const roles = known.every((role) => STANDARD.includes(role)) ? STANDARD : [...new Set([...known, "system"])];
      const insert = (n, role) => put([...path, n], { op: "insert", value: { [who]: role, [said]: "" } })
        .then(() => view.querySelectorAll(".turn-edit")[n]?.querySelector("textarea")?.focus());
      const following = (role) => {
        const talk = roles.filter((one) => !["system", "tool"].includes(one));
        return talk[(talk.indexOf(role) + 1) % talk.length] || role;
      };
      return make("div", { class: "turns-edit" },
        at[0] !== "system" ? button("plain small", "+ " + say("System text"), () => insert(0, "system")) : "",
        turns.map((one, n) => {
          const label = `${one[who]} ${n + 1}`;
          const role = studio.select(roles.map((name) => [name, name]), one[who],
            (value) => put([...path, n, who], { value }),
              { "aria-label": say("Who speaks in turn {n}", { n: n + 1 }) });
          return make("div", { class: "turn-edit" }, make("div", { class: "turn-head" }, role,
            button("plain small", "+ " + say("Turn below"), () => insert(n + 1, following(one[who]))),
            button("plain small", say("Remove"), () => put([...path, n], { op: "remove" }),
              { disabled: turns.length < 2 })),
            typeof one[said] === "string"
              ? area([...path, n, said], one[said], label)
              : one[said] === undefined ? "" : json([...path, n, said], label),
            Object.keys(one).filter((key) => key !== who && key !== said)
              .map((key) => cell([...path, n, key], one[key], key)));
        }));
    }
    function drawRow() {
      const row = shown.row, value = shown.value;
      const parts = value == null
        ? [make("p", { class: "note" }, say("This line could not be read. Write it as JSON, or delete the row."))]
        : Array.isArray(value)
        ? (shown.lists.length ? [drawTurns(shown.lists[0], value)] : [json([], say("Row"))])
        : typeof value !== "object" ? [area([], String(value), say("Row"), (text) => ({ value: { text } }))]
        : Object.entries(value).map(([key, one]) => {
          const turns = shown.lists.find((each) => same(each.path, [key]));
          return turns ? drawTurns(turns, one) : cell([key], one, key);
        });
      if (value == null) parts.push(json([], say("Row"), shown.text));
      view.replaceChildren(make("div", { class: "row-head" },
        make("b", { class: "num" }, say("Row {n}", { n: number(row) }),
          shown.added || shown.changed
            ? make("span", { class: "tag edited-tag" }, say(shown.added ? "new" : "changed"))
            : ""),
        make("div", { class: "row-acts" },
          button("button edit-add", say("Add a row below"), () => step({ op: "add", after: row })),
          button("button edit-delete", say("Delete this row"), () => remove(row)))),
        ...parts,
        shown.missing.length
          ? make("p", { class: "small quiet jump" }, say("Empty columns:"), " ",
            shown.missing.slice(0, 12).map((name) => button("plain", "+ " + name, () => put([name], { value: "" }))))
          : "",
        verdict);
    }
    const remove = (row) => {
      const place = list.rows.findIndex((one) => one.row === row);
      list.chosen = (list.rows[place + 1] || list.rows[place - 1])?.row ?? null;
      return step({ op: "delete", rows: [row] });
    };
    function drawVerdict() {
      const open = verdict.querySelector("details")?.open ?? false;
      verdict.replaceChildren(...[...shown.problems.map((one) => make("p", { class: "note" },
        make("b", {}, one.field || ""), " ", one.reason, " ", one.hint, one.value && make("code", {}, one.value))),
        shown.fault && studio.fault(shown.fault),
        shown.refused
          ? make("p", { class: "quiet small" }, say("As it stands, this row is not trained on."))
          : !shown.fault && shown.tokens
          ? make("details", { open },
            make("summary", {},
              say("What is trained of it: {trained} of {n} tokens",
                { trained: number(shown.trained), n: number(shown.count) })),
            studio.tokens(shown))
          : null].filter(Boolean));
    }

    const open = async (row = null) => {
      if (row != null) { list.chosen = row; list.kind = ""; }
      element.hidden = false;
      element.setAttribute("aria-label", say("Editor"));
      tell(null);
      if (!list.rows.length) { title.textContent = say("Reading…"); list.counter.textContent = ""; }
      list.node.focus({ preventScroll: true });
      await load({ around: row });
      finder.draw();
    };
    const clear = () => {
      asked += 1;
      looked += 1;
      element.hidden = true;
      list.clear(); view.replaceChildren();
      finder.hide();
    };
    const close = () => { clear(); list.rows = []; closed(); };
    return {
      element, open,
      get isOpen() { return !element.hidden; },
      async fix(which, way) {
        await open();
        await finder.preview({ kind: which, way });
        finder.results.scrollIntoView({ behavior: "smooth", block: "center" });
      },
      async only(which) { await open(); list.only(which); },
      // Another file, another language, or the same file anew.
      begin() {
        page = { columns: [], roles: [] }; state = { revision: 0, changes: 0, counts: {} };
        list.begin(); shown = null; finder.clear();
        drawBar(); clear();
      },
      speak() { drawBar(); finder.draw(); if (!element.hidden) load(); },
    };
  };
})();
