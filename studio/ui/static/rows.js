// Any row as conversation, as text and as coloured tokens. Arrow keys go from row to row.
(() => {
  const studio = window.studio, { element: make, say, number } = studio;
  const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool", text: "Text" };

  // A row as the tokens it would be trained on, coloured, with the place of the cut.
  studio.tokens = (shown) => {
    if (!shown.tokens)
      return make("p", { class: "quiet small" }, say("Tokens are shown once the model is on this computer."));
    const box = make("div", { class: "tokens", role: "group", "aria-label": say("Tokens") });
    const ends = new Set(shown.ends);
    shown.tokens.forEach(([text, trained], place) => {
      if (place === shown.limit)
        box.append(make("span", { class: "cut-mark" }, say("cut here: {n} tokens", { n: shown.limit })));
      const flags = { trained, ends: ends.has(place), gone: place >= shown.limit };
      const classes = Object.keys(flags).filter((flag) => flags[flag]);
      box.append(make("span", { class: ["token", ...classes, `t${place % 2}`].join(" ") },
        text.replace(/\n/g, "↵\n") || "·"));
    });
    return make("div", {},
      make("p", { class: "quiet small key" }, make("span", { class: "token trained" }, say("trained on")),
        make("span", { class: "token" }, say("only read")),
        make("span", { class: "token trained ends" }, say("end of turn")),
        make("span", { class: "num" }, say("{n} tokens, {trained} trained on · template {template}",
          { n: number(shown.count), trained: number(shown.trained), template: shown.template }))),
      shown.caution && !shown.text_only ? make("p", { class: "fault" }, studio.told(shown.caution)) : null,
      shown.note ? make("p", { class: "quiet small" }, studio.told(shown.note)) : null, box,
      shown.shown < shown.count
        && make("p", { class: "quiet small" }, say("The first {n} tokens are shown.", { n: shown.shown })));
  };

  studio.rows = (server, tools = null) => {
    const list = new studio.RowList({
      load: () => load(), show: (row) => show(row),
      line: (one) => [make("span", { class: "row-text" }, one.asked || one.answered),
        one.kinds.length > 0 && make("i", { class: "dot suspicious", title: one.kinds.join(", ") })]
    });
    const view = make("div", { class: "row-view" });
    const search = make("input", { type: "search", class: "row-search" });
    const title = make("h2"), element = make("section", { class: "card rows" });
    let shape = studio.stored("studio-row-shape") || "tokens", shown = null, asked = 0, looked = 0;

    const load = async () => {
      const mine = (asked += 1), before = looked;
      const answer = await server.rows(studio.question(
        { start: list.start, search: search.value.trim(), kind: list.kind })).catch(() => null);
      if (!answer?.rows || mine !== asked) return; // refused, or not answered in time: what stands here stays
      title.textContent = say("Rows");
      search.placeholder = say("Search in the rows");
      search.setAttribute("aria-label", search.placeholder);
      list.node.setAttribute("aria-label", say("Rows; arrow keys go from one to the next"));
      list.take(answer);
      if (before !== looked) return; // a row was chosen meanwhile: a problem's, before the list was there
      const chosen = list.settle();
      if (chosen != null) show(chosen);
      else view.replaceChildren(make("p", { class: "quiet" }, say("No row fits.")));
    };

    async function show(row, jump) {
      list.choose(row);
      const mine = (looked += 1);
      const answer = await server.preview(studio.question({ row })).catch(() => null);
      if (!answer || mine !== looked || list.chosen !== row) return;
      if (answer.error) { view.replaceChildren(studio.fault(answer.error)); return; }
      shown = answer;
      drawView();
      if (jump) element.scrollIntoView({ behavior: "smooth", block: "start" });
    }

    const turnOf = (one) => make("div", { class: `turn ${one.role}` },
      make("b", {}, say(ROLES[one.role] || one.role)), make("p", {}, one.content));
    const talk = () => (shown.other == null
      ? make("div", { class: "talk" }, shown.conversation.map(turnOf))
      : make("div", { class: "talk" }, shown.conversation.slice(0, -1).map(turnOf),
        sides(turnOf(shown.conversation.at(-1)), turnOf({ role: "assistant", content: shown.other }))));
    // Both answers of a pair beside each other.
    const sides = (chosen, rejected) => make("div", { class: "row-sides" },
      [["Chosen", chosen], ["Rejected", rejected]].map(([name, node]) =>
        make("section", { class: `row-side ${name.toLowerCase()}` }, make("h3", {}, say(name)), node)));
    const both = (one) => (shown.rejected ? sides(one(shown), one(shown.rejected)) : one(shown));
    const drawView = () => {
      const change = (wanted) => { shape = wanted; studio.store("studio-row-shape", wanted); drawView(); };
      const inside = shown.refused
        ? make("p", { class: "quiet" }, say("This row could not be read as a conversation."))
        : shown.fault && shape !== "talk"
        ? studio.fault(shown.fault)
        : shape === "talk"
        ? talk()
        : shape === "text"
        ? both((one) => make("pre", { class: "rendered", tabindex: "0" }, one.text ?? ""))
        : shown.tokens ? both(studio.tokens) : make("div", {}, studio.tokens(shown), talk());
      view.replaceChildren(...[make("div", { class: "row-head" },
        make("b", { class: "num" }, say("Row {n}", { n: number(shown.row) }),
          shown.line ? make("span", { class: "quiet" }, " · " + say("line {n}", { n: shown.line })) : "",
          shown.good == null
            ? ""
            : make("span", { class: `verdict-mark ${shown.good ? "good" : "bad"}` },
              say(shown.good ? "good answer" : "bad answer"))),
        studio.segments("Show the row as", [["tokens", "Tokens"], ["text", "Text"], ["talk", "Conversation"]], shape,
          change)),
        ...shown.problems.map((one) => make("p", { class: "note" }, one.reason, " ", one.hint,
          one.value && make("code", {}, one.value))),
        inside].filter(Boolean));
    };

    search.addEventListener("input", () => {
      clearTimeout(search.later);
      search.later = setTimeout(() => list.turn(0), 250);
    });
    element.append(make("div", { class: "rows-head" }, title, list.counter, search, tools),
      make("div", { class: "rows-columns" }, list.node, view));
    let source = null, fingerprint = null;
    return {
      element, show,
      only: (kind) => { search.value = ""; list.only(kind); element.scrollIntoView({ behavior: "smooth" }); },
      refresh(found) {
        if (found.source !== source) { source = found.source; list.begin(); search.value = ""; }
        if (found.fingerprint !== fingerprint) { // other rows: none of the earlier ones stays in sight
          fingerprint = found.fingerprint;
          looked += 1;
          list.clear();
          view.replaceChildren(make("p", { class: "quiet" }, say("Reading…")));
        }
        load();
      },
    };
  };
})();
