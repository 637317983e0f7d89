// Find and replace, and fixes of one kind of problem, in the data editor (editor.js): a preview first.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;

  // question(more) adds what every question holds; apply(op) carries an operation out; names() are roles and columns;
  // open(row) shows a row; renew(revision) reads the rows anew where they have changed.
  studio.editFinder = ({ server, apply, names, open, renew }) => {
    const form = make("form", { class: "edit-find" });
    const results = make("div", { class: "edit-results", hidden: true });
    const counted = studio.counted;
    let searched = 0;
    const find = make("input", { type: "search", id: "edit-find" });
    const other = make("input", { type: "text", id: "edit-put" });
    const where = make("select", { id: "edit-only" });
    const exact = make("input", { type: "checkbox", id: "edit-case", checked: true });
    const pattern = make("input", { type: "checkbox", id: "edit-regex" });
    const look = make("button", { type: "submit", class: "button edit-look" });
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
      where.replaceChildren(make("option", { value: "" }, say("in all text")),
        ...names().map((name) => make("option", { value: name }, say("in {name}", { name }))));
      where.value = value; if (where.selectedIndex < 0) where.value = "";
      look.textContent = say("Preview");
      form.replaceChildren(find, other, where, make("label", { for: "edit-case" }, exact, " ", say("Match case")),
        make("label", { for: "edit-regex" }, pattern, " ", say("Pattern (regular expression)")), look);
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
      const status = make("div", { class: "edit-found" });
      const lines = make("div", { class: "edit-lines" });
      const confirm = make("button", { class: "primary edit-apply", hidden: true });
      results.hidden = false;
      results.replaceChildren(make("div", { class: "row-head" }, status,
        make("div", { class: "row-acts" }, button("button", say("Close"), hide), confirm)),
        lines);
      status.textContent = say("Looking through the rows…");
      for (let from = 0; from != null;) {
        const answer = await (what === "replace"
          ? server.edit_find
          : server.edit_fix)(studio.question({ ...asking, start: from }))
          .catch((problem) => ({ error: studio.trouble(problem) }));
        if (mine !== searched) return;
        if (answer.error) {
          status.replaceChildren(studio.fault(answer.error));
          return;
        }
        await renew(answer.revision);
        total.rows += answer.rows; total.matches += answer.matches;
        for (const one of answer.examples) if (total.examples.push(one) <= 30) lines.append(example(one));
        from = answer.after;
        if (from != null)
          status.textContent = say("Looking through the rows… {n} of {of}", { n: number(from), of: number(answer.of) });
      }
      const n = number(total.rows);
      status.replaceChildren(make("b", {},
        !total.rows
          ? say(what === "replace" ? "Found nowhere." : "No row is left that this would change.")
          : what === "replace"
          ? say("Found: {n} in {rows} rows", { n: number(total.matches), rows: n })
        : counted(total.rows,
          what.way === "delete"
            ? ["1 row would be deleted", "{n} rows would be deleted"]
            : ["1 row would be mended", "{n} rows would be mended"])),
        total.rows > 30 ? make("span", { class: "quiet small" }, " ", say("The first 30 are shown.")) : "");
      confirm.hidden = !total.rows;
      confirm.textContent = what === "replace"
        ? say("Replace all {n}", { n: number(total.matches) })
        : counted(total.rows,
          what.way === "delete" ? ["Delete 1 row", "Delete all {n} rows"] : ["Fix 1 row", "Fix all {n} rows"]);
      confirm.addEventListener("click", () => {
        confirm.disabled = true;
        apply(what === "replace" ? { op: "replace", ...asking } : { op: "fix", ...asking });
      });
    }
    const KINDS = { same: "span", old: "del", new: "ins" };
    const example = (one) => make("p", { class: "edit-line" },
      button("plain num", String(one.row), () => open(one.row)),
      one.label ? make("span", { class: "quiet small" }, one.label) : "",
      make("span", { class: "edit-text" }, one.parts.map(([what, text]) => make(KINDS[what], {}, text)),
        one.more > 0 ? make("span", { class: "quiet small" }, " ", say("and {n} more", { n: one.more })) : ""));
    const clear = () => { find.value = other.value = ""; };
    return { form, results, draw, hide, preview, clear };
  };
})();
