// The data editor: any row changed in place, find and replace with a preview, fixes of one kind of problem, undo; saved
// as a new file.
(() => {
  const studio = window.studio, make = studio.element;
  const STANDARD = ["system", "user", "assistant", "tool"], PAGE = 20;
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  const COUNTED = {
    cells: ["1 cell changed", "{n} cells changed"], added: ["1 row added", "{n} rows added"],
    deleted: ["1 row deleted", "{n} rows deleted"],
    replacements: ["1 place replaced", "{n} places replaced"], mended: ["1 row mended", "{n} rows mended"] };
  const counted = studio.counted = (n, [one, many]) => studio.say(n === 1 ? one : many, { n: studio.number(n) });
  studio.editedCounts = (counts) => Object.entries(COUNTED)
    .filter(([key]) => counts[key])
    .map(([key, texts]) => counted(counts[key], texts))
    .join(" · ");

  // saved(answer) is told of a new file, closed() that the editor was left.
  studio.editor = (server, { saved, closed }) => {
    const list = make("div", { class: "rows-list", tabindex: "0", role: "group" });
    const view = make("div", { class: "edit-view" });
    const title = make("h2");
    const counter = make("p", { class: "quiet small num" });
    const bar = make("div", { class: "edit-bar" });
    const notice = make("div", { class: "edit-notice", role: "status" });
    const finder = studio.editFinder({
      server, question: (more) => question(more), apply: (op) => step(op),
      names: () => [...new Set([...page.roles, ...page.columns])],
      open: goTo,
      renew: (revision) => (revision !== state.revision ? load({ quiet: true }) : null),
    });
    const verdict = make("div", { class: "edit-verdict" });
    const leave = make("button", { type: "button", class: "button", onclick: () => close() });
    const element = make("section", { class: "card editor", hidden: true },
      make("div", { class: "rows-head" }, title, counter, leave), notice, bar, finder.form, finder.results,
      make("div", { class: "rows-columns" }, list, view));
    let state = { revision: 0, changes: 0, counts: {} };
    let page = { count: 0, rows: [], columns: [], roles: [] };
    let start = 0;
    let kind = "";
    let chosen = null;
    let shown = null;
    let asked = 0, looked = 0, going = Promise.resolve();
    const question = (more) => ({ order: studio.order.value, lang: studio.language, ...more });
    const say = studio.say, number = studio.number;

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
    const tell = (problem) => notice.replaceChildren(...(problem
      ? [make("p", { class: "fault", role: "alert" }, make("b", {}, problem.message), " ", problem.hint || "")]
      : []));

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
      if (answer.row != null) chosen = answer.row;
      await load({ around: answer.row });
    };

    // -- the bar: what is not saved
    const undo = make("button", { type: "button", class: "button edit-undo", onclick: () => step({ op: "undo" }) });
    const redo = make("button", { type: "button", class: "button edit-redo", onclick: () => step({ op: "redo" }) });
    const discard = make("button",
      { type: "button", class: "button edit-discard", onclick: () => step({ op: "discard" }) });
    const keep = make("button", { type: "button", class: "primary edit-save", onclick: () => save() });
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
      const answer = await server.edit_rows(question({ start, kind, around }))
        .catch((problem) => ({ error: studio.trouble(problem) }));
      if (mine !== asked || element.hidden) return;
      if (answer.error) { tell(answer.error); return; }
      page = state = answer; start = answer.start;
      drawList(); drawBar();
      if (quiet) return;
      if (!page.rows.some((one) => one.row === chosen)) chosen = page.rows[0]?.row ?? null;
      if (chosen != null) await show(chosen); else {
        shown = null;
        view.replaceChildren(make("p", { class: "quiet" }, say("No row fits.")));
      }
    }
    const turn = (to) => { start = Math.max(0, to); chosen = null; load(); };
    function goTo(row) { chosen = row; kind = ""; load({ around: row }); }
    function drawList() {
      title.textContent = say("Edit {name}", { name: page.from || "" }); leave.textContent = say("Leave the editor");
      list.setAttribute("aria-label", say("Rows; arrow keys go from one to the next, Enter edits"));
      const last = Math.min(start + page.rows.length, page.count);
      counter.replaceChildren(page.count
        ? say("{first}–{last} of {n}", { first: number(start + 1), last: number(last), n: number(page.count) })
        : "–",
        " ",
        make("button", {
          type: "button", class: "plain", disabled: start === 0, "aria-label": say("Earlier rows"),
          onclick: () => turn(start - PAGE)
        }, "←"),
        " ",
        make("button", {
          type: "button", class: "plain", disabled: last >= page.count, "aria-label": say("Later rows"),
          onclick: () => turn(start + PAGE)
        }, "→"),
        " ",
        page.count > PAGE
          ? make("input", {
            type: "text", inputmode: "numeric", class: "go-to num", placeholder: say("Go to row"),
            "aria-label": say("Go to row"),
            onchange: ({ target }) => {
              const row = Number(target.value.replace(/\D/g, ""));
              if (row) goTo(row);
            }
          })
          : "",
        " ",
        kind
          ? make("button", { type: "button", class: "plain", onclick: () => { kind = ""; turn(0); } },
            say("Show all rows"))
          : "");
      list.replaceChildren(...page.rows.map((one) => make("button", {
        type: "button", class: "row-line", tabIndex: -1, "data-row": String(one.row),
        "aria-pressed": String(one.row === chosen), onclick: () => show(one.row)
      },
        make("span", { class: "num quiet" }, String(one.row)), make("span", { class: "row-text" }, one.text || "–"),
        one.added || one.changed
          ? make("i", { class: "dot edited", title: say(one.added ? "new" : "changed") })
          : one.fault
          ? make("i", { class: "dot suspicious", title: say("worth a look") })
          : "")));
    }
    list.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target === list) {
        event.preventDefault();
        view.querySelector("textarea")?.focus();
        return;
      }
      const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const place = page.rows.findIndex((one) => one.row === chosen), there = page.rows[place + by];
      if (there) { show(there.row); list.children[place + by]?.scrollIntoView({ block: "nearest" }); }
      else if (by > 0 && start + page.rows.length < page.count) turn(start + PAGE);
      else if (by < 0 && start > 0) turn(start - PAGE);
    });

    // -- one row
    async function show(row, fields = true) {
      const mine = (looked += 1);
      chosen = row;
      for (const line of list.children) line.setAttribute("aria-pressed", String(line.dataset.row === String(row)));
      const answer = await server.edit_row(question({ row })).catch((problem) => ({ error: studio.trouble(problem) }));
      if (mine !== looked || chosen !== row) return;
      if (answer.error) {
        view.replaceChildren(make("p", { class: "fault", role: "alert" }, answer.error.message, " ",
          answer.error.hint || ""));
        return;
      }
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
      if (chosen === row) await show(row, !field);
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
          list.focus();
        }
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          commit();
          const all = [...view.querySelectorAll("textarea")];
          (all[all.indexOf(field) + 1] || list).focus();
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
        at[0] !== "system"
          ? make("button", { type: "button", class: "plain small", onclick: () => insert(0, "system") },
            "+ " + say("System text"))
          : "",
        turns.map((one, n) => {
          const label = `${one[who]} ${n + 1}`;
          const role = make("select", { "aria-label": say("Who speaks in turn {n}", { n: n + 1 }) },
            roles.map((name) => make("option", { value: name }, name)));
          role.value = one[who];
          role.addEventListener("change", () => put([...path, n, who], { value: role.value }));
          return make("div", { class: "turn-edit" }, make("div", { class: "turn-head" }, role,
            make("button", { type: "button", class: "plain small", onclick: () => insert(n + 1, following(one[who])) },
              "+ " + say("Turn below")),
            make("button", {
              type: "button", class: "plain small", disabled: turns.length < 2,
              onclick: () => put([...path, n], { op: "remove" })
            }, say("Remove"))),
            typeof one[said] === "string"
              ? area([...path, n, said], one[said], label)
              : one[said] === undefined
              ? ""
              : json([...path, n, said], label),
            Object.keys(one)
              .filter((key) => key !== who && key !== said)
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
          make("button", {
            type: "button", class: "button edit-add",
            onclick: () => step({ op: "add", after: row })
          }, say("Add a row below")),
          make("button", { type: "button", class: "button edit-delete", onclick: () => remove(row) },
            say("Delete this row")))),
        ...parts,
        shown.missing.length
          ? make("p", { class: "small quiet jump" }, say("Empty columns:"), " ",
            shown.missing.slice(0, 12)
              .map((name) => make("button",
                { type: "button", class: "plain", onclick: () => put([name], { value: "" }) },
                "+ " + name)))
          : "",
        verdict);
    }
    const remove = (row) => {
      const place = page.rows.findIndex((one) => one.row === row);
      chosen = (page.rows[place + 1] || page.rows[place - 1])?.row ?? null;
      return step({ op: "delete", rows: [row] });
    };
    function drawVerdict() {
      const open = verdict.querySelector("details")?.open ?? false;
      verdict.replaceChildren(...[...shown.problems.map((one) => make("p", { class: "note" },
        make("b", {}, one.field || ""), " ", one.reason, " ", one.hint, one.value && make("code", {}, one.value))),
        shown.fault && make("p", { class: "fault" }, shown.fault.message, " ", shown.fault.hint || ""),
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
      if (row != null) { chosen = row; kind = ""; }
      element.hidden = false;
      element.setAttribute("aria-label", say("Editor"));
      tell(null);
      if (!page.rows.length) { title.textContent = say("Reading…"); counter.textContent = ""; }
      await load({ around: row });
      finder.draw();
    };
    const clear = () => {
      asked += 1;
      looked += 1;
      element.hidden = true;
      for (const part of [list, view, counter]) part.replaceChildren();
      finder.hide();
    };
    const close = () => { clear(); page = { ...page, rows: [] }; closed(); };
    return {
      element, open,
      get isOpen() { return !element.hidden; },
      async fix(which, way) {
        await open();
        await finder.preview({ kind: which, way });
        finder.results.scrollIntoView({ behavior: "smooth", block: "center" });
      },
      async only(which) { await open(); kind = which; turn(0); },
      // Another file, another language, or the same file anew.
      begin() {
        page = { count: 0, rows: [], columns: [], roles: [] }; state = { revision: 0, changes: 0, counts: {} };
        start = 0; kind = ""; chosen = null; shown = null; finder.clear();
        drawBar(); clear();
      },
      speak() { drawBar(); finder.draw(); if (!element.hidden) load(); },
    };
  };
})();
