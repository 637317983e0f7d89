// Any row as conversation, as text and as coloured tokens. Arrow keys go from row to row.
(() => {
  const studio = window.studio, make = studio.element;
  const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool", text: "Text" };

  // A row as the tokens it would be trained on, coloured, with the place of the cut.
  studio.tokens = (shown) => {
    if (!shown.tokens)
      return make("p", { class: "quiet small" }, studio.say("Tokens are shown once the model is on this computer."));
    const box = make("div", { class: "tokens", role: "group", "aria-label": studio.say("Tokens") });
    const ends = new Set(shown.ends);
    shown.tokens.forEach(([text, trained], place) => {
      if (place === shown.limit)
        box.append(make("span", { class: "cut-mark" }, studio.say("cut here: {n} tokens", { n: shown.limit })));
      const flags = { trained, ends: ends.has(place), gone: place >= shown.limit };
      const classes = Object.keys(flags).filter((flag) => flags[flag]);
      box.append(make("span", { class: ["token", ...classes, `t${place % 2}`].join(" ") },
        text.replace(/\n/g, "↵\n") || "·"));
    });
    return make("div", {},
      make("p", { class: "quiet small key" }, make("span", { class: "token trained" }, studio.say("trained on")),
        make("span", { class: "token" }, studio.say("only read")),
        make("span", { class: "token trained ends" }, studio.say("end of turn")),
        make("span", { class: "num" }, studio.say("{n} tokens, {trained} trained on · template {template}",
          { n: studio.number(shown.count), trained: studio.number(shown.trained), template: shown.template }))),
          shown.caution && !shown.text_only ? make("p", { class: "fault" }, studio.told(shown.caution)) : null,
      shown.note ? make("p", { class: "quiet small" }, studio.told(shown.note)) : null, box,
      shown.shown < shown.count
        && make("p", { class: "quiet small" }, studio.say("The first {n} tokens are shown.", { n: shown.shown })));
  };

  studio.rows = (server, tools = null) => {
    const list = make("div", { class: "rows-list", tabindex: "0", role: "group" });
    const view = make("div", { class: "row-view" });
    const search = make("input", { type: "search", class: "row-search" });
    const counter = make("p", { class: "quiet small num" });
    const title = make("h2"), element = make("section", { class: "card rows" });
    let page = { count: 0, rows: [] };
    let start = 0;
    let kind = "";
    let chosen = null;
    let shape = studio.stored("studio-row-shape") || "tokens";
    let shown = null;
    let asked = 0, looked = 0;
    const question = (more) => ({ order: studio.order.value, lang: studio.language, ...more });

    const turn = async (to) => { start = Math.max(0, to); await load(); };
    const load = async () => {
      const mine = (asked += 1);
      const answer = await server.rows(question({ start, search: search.value.trim(), kind })).catch(() => null);
      if (!answer?.rows || mine !== asked) return; // refused, or not answered in time: what stands here stays
      page = answer;
      if (!page.rows.some((one) => one.row === chosen)) chosen = page.rows[0]?.row ?? null;
      drawList();
      if (chosen != null) show(chosen);
      else view.replaceChildren(make("p", { class: "quiet" }, studio.say("No row fits.")));
    };

    const drawList = () => {
      title.textContent = studio.say("Rows");
      search.placeholder = studio.say("Search in the rows");
      search.setAttribute("aria-label", search.placeholder);
      list.setAttribute("aria-label", studio.say("Rows; arrow keys go from one to the next"));
      const last = Math.min(start + page.rows.length, page.count);
      counter.replaceChildren(page.count
        ? studio.say("{first}–{last} of {n}",
          { first: studio.number(start + 1), last: studio.number(last), n: studio.number(page.count) })
        : "–",
        " ",
        make("button", {
          type: "button", class: "plain", disabled: start === 0, "aria-label": studio.say("Earlier rows"),
          onclick: () => turn(start - 20)
        }, "←"),
        " ",
        make("button", {
          type: "button", class: "plain", disabled: last >= page.count, "aria-label": studio.say("Later rows"),
          onclick: () => turn(start + 20)
        }, "→"),
        kind
          && make("button", { type: "button", class: "plain", onclick: () => { kind = ""; turn(0); } },
            studio.say("Show all rows"))
          || "");
      list.replaceChildren(...page.rows.map((one) => make("button", {
        type: "button", class: "row-line", tabIndex: -1, "aria-pressed": String(one.row === chosen),
        onclick: () => { show(one.row); list.focus(); }
      },
        make("span", { class: "num quiet" }, String(one.row)),
        make("span", { class: "row-text" }, one.asked || one.answered),
        one.kinds.length > 0 && make("i", { class: "dot suspicious", title: one.kinds.join(", ") }))));
    };

    async function show(row, jump) {
      chosen = row;
      for (const line of list.children)
        line.setAttribute("aria-pressed", String(line.firstChild.textContent === String(row)));
      const mine = (looked += 1);
      const answer = await server.preview(question({ row })).catch(() => null);
      if (!answer || mine !== looked || chosen !== row) return;
      if (answer.error) {
        view.replaceChildren(make("p", { class: "fault", role: "alert" }, answer.error.message, " ",
          answer.error.hint || ""));
        return;
      }
      shown = answer;
      drawView();
      if (jump) element.scrollIntoView({ behavior: "smooth", block: "start" });
    }

    const turnOf = (one) => make("div", { class: `turn ${one.role}` },
      make("b", {}, studio.say(ROLES[one.role] || one.role)), make("p", {}, one.content));
    const talk = () => (shown.other == null
      ? make("div", { class: "talk" }, shown.conversation.map(turnOf))
      : make("div", { class: "talk" }, shown.conversation.slice(0, -1).map(turnOf),
        sides(turnOf(shown.conversation.at(-1)), turnOf({ role: "assistant", content: shown.other }))));
    // Both answers of a pair beside each other.
    const sides = (chosen, rejected) => make("div", { class: "row-sides" },
      [["Chosen", chosen], ["Rejected", rejected]].map(([name, node]) =>
        make("section", { class: `row-side ${name.toLowerCase()}` }, make("h3", {}, studio.say(name)), node)));
    const both = (one) => (shown.rejected ? sides(one(shown), one(shown.rejected)) : one(shown));
    const drawView = () => {
      const change = (wanted) => { shape = wanted; studio.store("studio-row-shape", wanted); drawView(); };
      const inside = shown.refused
        ? make("p", { class: "quiet" }, studio.say("This row could not be read as a conversation."))
        : shown.fault && shape !== "talk"
        ? make("p", { class: "fault" }, shown.fault.message, " ", shown.fault.hint)
        : shape === "talk"
        ? talk()
        : shape === "text"
        ? both((one) => make("pre", { class: "rendered", tabindex: "0" }, one.text ?? ""))
        : shown.tokens
        ? both(studio.tokens)
        : make("div", {}, studio.tokens(shown), talk());
      view.replaceChildren(...[make("div", { class: "row-head" },
        make("b", { class: "num" }, studio.say("Row {n}", { n: studio.number(shown.row) }),
          shown.line ? make("span", { class: "quiet" }, " · " + studio.say("line {n}", { n: shown.line })) : "",
          shown.good == null
            ? ""
            : make("span", { class: `verdict-mark ${shown.good ? "good" : "bad"}` },
              studio.say(shown.good ? "good answer" : "bad answer"))),
        studio.segments("Show the row as", [["tokens", "Tokens"], ["text", "Text"], ["talk", "Conversation"]], shape,
          change)),
        ...shown.problems.map((one) => make("p", { class: "note" }, one.reason, " ", one.hint,
          one.value && make("code", {}, one.value))),
        inside].filter(Boolean));
    };

    list.addEventListener("keydown", (event) => {
      const next = { ArrowDown: "after", ArrowRight: "after", ArrowUp: "before", ArrowLeft: "before" }[event.key];
      if (!next || !shown) return;
      event.preventDefault();
      const place = page.rows.findIndex((one) => one.row === chosen);
      const there = page.rows[place + (next === "after" ? 1 : -1)];
      if (there) { show(there.row); list.children[page.rows.indexOf(there)]?.scrollIntoView({ block: "nearest" }); }
      else if (next === "after" && start + page.rows.length < page.count) turn(start + 20);
      else if (next === "before" && start > 0) { chosen = null; turn(start - 20); }
    });
    search.addEventListener("input", () => {
      clearTimeout(search.later);
      search.later = setTimeout(() => turn(0), 250);
    });
    element.append(make("div", { class: "rows-head" }, title, counter, search, tools),
      make("div", { class: "rows-columns" }, list, view));
    let source = null, fingerprint = null;
    return {
      element, show,
      only: (wanted) => { kind = wanted; search.value = ""; turn(0); element.scrollIntoView({ behavior: "smooth" }); },
      refresh(found) {
        if (found.source !== source) { source = found.source; start = 0; kind = ""; chosen = null; search.value = ""; }
        if (found.fingerprint !== fingerprint) { // other rows: none of the earlier ones stays in sight
          fingerprint = found.fingerprint;
          looked += 1;
          list.replaceChildren();
          counter.replaceChildren();
          view.replaceChildren(make("p", { class: "quiet" }, studio.say("Reading…")));
        }
        load();
      },
    };
  };
})();
