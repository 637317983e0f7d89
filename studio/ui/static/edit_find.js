// Find and replace, and fixes of one kind of problem, in the data editor (editor.js): a preview first.
(() => {
  const studio = window.studio, el = studio.element;

  // question(more) adds what every question holds; apply(op) carries an operation out; names() are roles and columns;
  // open(row) shows a row; renew(revision) reads the rows anew where they have changed.
  studio.editFinder = ({ server, question, apply, names, open, renew }) => {
    const form = el("form", { class: "edit-find" });
    const results = el("div", { class: "edit-results", hidden: true });
    const say = studio.say, number = studio.number, counted = studio.counted;
    let searched = 0;
    const find = el("input", { type: "search", id: "edit-find" });
    const other = el("input", { type: "text", id: "edit-put" });
    const where = el("select", { id: "edit-only" });
    const exact = el("input", { type: "checkbox", id: "edit-case", checked: true });
    const pattern = el("input", { type: "checkbox", id: "edit-regex" });
    const look = el("button", { type: "submit", class: "button edit-look" });
    for (const field of [find, other]) { field.autocomplete = "off"; field.spellcheck = false; }
    form.addEventListener("submit", (event) => { event.preventDefault(); if (find.value) preview("replace"); });
    for (const field of [find, other, where, exact, pattern]) field.addEventListener("input", () => hide());
    function draw() {
      const value = where.value;
      find.placeholder = say("Find");
      drawOther();
      find.setAttribute("aria-label", say("Find"));
      other.setAttribute("aria-label", say("Replace by"));
      where.setAttribute("aria-label", say("Where to look"));
      where.replaceChildren(el("option", { value: "" }, say("in all text")),
        ...names().map((name) => el("option", { value: name }, say("in {name}", { name }))));
      where.value = value; if (where.selectedIndex < 0) where.value = "";
      look.textContent = say("Preview");
      form.replaceChildren(find, other, where, el("label", { for: "edit-case" }, exact, " ", say("Match case")),
        el("label", { for: "edit-regex" }, pattern, " ", say("Pattern (regular expression)")), look);
    }
    // Python's notation, where other editors take $1
    const drawOther = () => {
      other.placeholder = pattern.checked ? say("Replace by (\\1: the first group)") : say("Replace by");
    };
    pattern.addEventListener("input", drawOther);
    const hide = () => { searched += 1; results.hidden = true; results.replaceChildren(); };

    // what: "replace", or {kind, way}. Looks through all rows, as many in a question as a moment allows.
    async function preview(what) {
      hide();
      const mine = searched, total = { rows: 0, matches: 0, examples: [] };
      const asking = what === "replace"
        ? { find: find.value, put: other.value, regex: pattern.checked, case: exact.checked, only: where.value || null }
        : what;
      const status = el("div", { class: "edit-found" });
      const lines = el("div", { class: "edit-lines" });
      const button = el("button", { type: "button", class: "primary edit-apply", hidden: true });
      results.hidden = false;
      results.replaceChildren(el("div", { class: "row-head" }, status,
        el("div", { class: "row-acts" },
          el("button", { type: "button", class: "button", onclick: hide }, say("Close")), button)),
        lines);
      status.textContent = say("Looking through the rows…");
      for (let from = 0; from != null;) {
        const answer = await (what === "replace"
          ? server.edit_find
          : server.edit_fix)(question({ ...asking, start: from }))
          .catch((problem) => ({ error: studio.trouble(problem) }));
        if (mine !== searched) return;
        if (answer.error) {
          status.replaceChildren(el("p", { class: "fault", role: "alert" }, el("b", {}, answer.error.message), " ",
            answer.error.hint || ""));
          return;
        }
        await renew(answer.revision);
        total.rows += answer.rows; total.matches += answer.matches;
        for (const one of answer.examples) if (total.examples.push(one) <= 30) lines.append(example(one));
        from = answer.after;
        if (from != null)
          status.textContent = say("Looking through the rows… {n} of {of}",
            { n: number(from), of: number(answer.of) });
      }
      const n = number(total.rows);
      status.replaceChildren(el("b", {},
        !total.rows
          ? say(what === "replace" ? "Found nowhere." : "No row is left that this would change.")
          : what === "replace"
          ? say("Found: {n} in {rows} rows", { n: number(total.matches), rows: n })
        : counted(total.rows,
          what.way === "delete"
            ? ["1 row would be deleted", "{n} rows would be deleted"]
            : ["1 row would be mended", "{n} rows would be mended"])),
        total.rows > 30 ? el("span", { class: "quiet small" }, " ", say("The first 30 are shown.")) : "");
      button.hidden = !total.rows;
      button.textContent = what === "replace"
        ? say("Replace all {n}", { n: number(total.matches) })
        : counted(total.rows,
          what.way === "delete" ? ["Delete 1 row", "Delete all {n} rows"] : ["Fix 1 row", "Fix all {n} rows"]);
      button.addEventListener("click", () => {
        button.disabled = true;
        apply(what === "replace" ? { op: "replace", ...asking } : { op: "fix", ...asking });
      });
    }
    const KINDS = { same: "span", old: "del", new: "ins" };
    const example = (one) => el("p", { class: "edit-line" },
      el("button", {
        type: "button", class: "plain num", onclick: () => open(one.row)
      }, String(one.row)),
      one.label ? el("span", { class: "quiet small" }, one.label) : "",
      el("span", { class: "edit-text" }, one.parts.map(([what, text]) => el(KINDS[what], {}, text)),
        one.more > 0 ? el("span", { class: "quiet small" }, " ", say("and {n} more", { n: one.more })) : ""));
    const clear = () => { find.value = other.value = ""; };
    return { form, results, draw, hide, preview, clear };
  };
})();
