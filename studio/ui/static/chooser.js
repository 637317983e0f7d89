// The model chooser: a dialogue over Tune. Cards of the catalogue, this computer's models and the Hub's, each with what
// the device can do with it for the data of the order. The catalogue needs no network, and answers fill places kept
// free.
(() => {
  const studio = window.studio, { element: make, button, say, number, bytes, duration } = studio;
  const METHODS = [["full", "Full"], ["lora", "LoRA"], ["qlora", "QLoRA"]];
  const OPEN = ["apache-2.0", "mit"];
  const SIZES = { small: [0, 1e9], medium: [1e9, 4.5e9], large: [4.5e9, 1.05e10], huge: [1.05e10, Infinity] };
  const LANGUAGES = { en: "English", zh: "Chinese", es: "Spanish", fr: "French", de: "German", ja: "Japanese",
    ko: "Korean", ar: "Arabic", pt: "Portuguese", ru: "Russian" };
  const weights = (count) => (count == null ? "" : count < 5e8
    ? `${number(count / 1e6, count < 1e7 ? 2 : 0)}M`
    : `${number(count / 1e9, count < 1e10 ? 2 : 0)}B`);

  // host: where in the page it lies. take(model, method or null, settings): what choosing does to the order.
  studio.chooser = (host, take, lookedAt) => {
    let rows = [], answers = {}, on = null, trained = null, hub = { rows: [], service: null }, asked = 0, later = 0;
    let card = "";
    const filters = { fits: "", size: "", language: "", licence: "" };
    const dialog = make("dialog", { class: "chooser" });
    host.append(dialog);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

    const search = make("input", { type: "search", class: "chooser-search", autocomplete: "off", spellcheck: "false",
      oninput: () => { list(); clearTimeout(later); later = setTimeout(searchHub, 400); },
      onkeydown: (event) => {
        if (event.key === "ArrowDown") { event.preventDefault(); box.querySelector("button")?.focus(); }
      } });
    const where = make("p", { class: "quiet small chooser-where", role: "status" });
    const box = make("div", { class: "chooser-list", onkeydown: (event) => move(event) });
    const bar = make("div", { class: "chooser-filters" });

    const select = (key, label, options) => make("label", {}, make("span", {}, say(label)),
      studio.select(options.map(([value, text]) => [value, say(text)]), filters[key],
        (value) => { filters[key] = value; list(); }));
    const devices = (names) => make("label", {}, make("span", {}, say("Device")),
      studio.select([["", say("This one")], ...names.map((name) => [name, name])], card,
        (name) => { card = name; ask(); }));
    const frame = (names) => {
      search.placeholder = say("Search models");
      search.setAttribute("aria-label", say("Search models"));
      bar.replaceChildren(
        select("fits", "Fits", [["", "Any"], ["some", "By some method"], ...METHODS]),
        select("size", "Size", [["", "Any"], ["small", "Under 1B"], ["medium", "1B to 4B"], ["large", "4B to 10B"],
          ["huge", "Over 10B"]]),
        select("language", "Language", [["", "Any"], ...Object.entries(LANGUAGES)]),
        select("licence", "Licence", [["", "Any"], ["open", "Open (Apache, MIT)"], ["free", "Not gated"]]),
        devices(names));
      dialog.setAttribute("aria-label", say("Choose a model"));
      dialog.replaceChildren(studio.dialogHead(dialog, say("Choose a model")), search, bar, where, box);
    };

    const move = (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const names = [...box.querySelectorAll(".choice-name")];
      const here = names.indexOf(event.target.closest(".choice")?.querySelector(".choice-name"));
      if (here + step < 0) search.focus(); else names[Math.min(names.length - 1, here + step)]?.focus();
    };

    const shown = (row) => {
      const found = answers[row.model], text = search.value.trim().toLowerCase();
      const [low, high] = SIZES[filters.size] || [0, Infinity];
      const some = METHODS.some(([key]) => found?.fits[key]?.fits);
      const names = `${row.model} ${row.family} ${say(row.family)} ${row.licence}`.toLowerCase();
      return (!text || names.includes(text) || row.hub)
        && (!filters.fits || (filters.fits === "some" ? some : found?.fits[filters.fits]?.fits))
        && (!filters.size || (row.parameters >= low && row.parameters < high))
        && (!filters.language || row.languages.includes(filters.language))
        && (!filters.licence || (filters.licence === "open" ? OPEN.includes(row.licence) : !row.gated));
    };

    const facts = (row) => [weights(row.parameters), row.licence, row.context
      && say("reads {n} tokens", { n: number(row.context) }),
      row.kind === "base" && say("a base: knows no chat yet"),
      row.thinking === "always" ? say("always thinks first") : row.thinking === "both" && say("can think first"),
      row.use === "code" && say("for code"),
      row.released?.replace("-", "\u2011"), row.local && say("on this computer")]
      .filter(Boolean).join(" · ");
    const pill = (row, key, label) => {
      const fit = answers[row.model]?.fits[key];
      return make("button", { class: `fit ${fit ? (fit.fits ? "fit-yes" : "fit-no") : ""}`,
        disabled: !fit?.fits,
        title: fit && !fit.fits ? studio.told(fit.why) : "", onclick: () => done(row, key, fit.settings) },
        make("b", {}, say(label)),
        make("span", { class: "num" }, fit ? (fit.total ? bytes(fit.total) : "–") : "…"));
    };
    const verdict = (row) => {
      const found = answers[row.model];
      if (row.hub) return say("What it takes is told in the summary once it is chosen.");
      if (!found) return " ";
      const best = METHODS.find(([key]) => found.fits[key]?.fits);
      if (!best)
        return found.smallest
          ? say("Will not fit. The smallest card that would: {card}, with {method}.",
            { card: found.smallest.device, method: say(METHODS.find(([key]) => key === found.smallest.method)[1]) })
          : say("Will not fit on one card.");
      const fit = found.fits[best[0]];
      return [say("{method} fits: rows up to {n} tokens", { method: say(best[1]), n: number(fit.max_length) }),
        fit.seconds != null && `≈ ${duration(fit.seconds)}`,
        Object.keys(fit.settings).length > 0 && say("with the settings that save most memory")]
        .filter(Boolean).join(" · ");
    };
    const choice = (row) => make("article", { class: "choice", "data-model": row.model },
      make("button", { class: "choice-name",
        "aria-current": row.model === studio.order.model() ? "true" : null,
        onclick: () => done(row, null, {}) },
        make("b", {}, row.model.split("/").pop()),
        make("span", { class: "quiet" }, say(row.family) || row.model.split("/")[0])),
      make("p", { class: "quiet small" }, facts(row)),
      make("div", { class: "fits" }, METHODS.map(([key, label]) => pill(row, key, label))),
      make("p", { class: "small choice-verdict" }, verdict(row)),
      row.access && make("p", { class: "small choice-access" }, say("Gated."), " ", row.access));

    const list = () => {
      const found = [...rows, ...hub.rows].filter(shown);
      box.replaceChildren(...(found.length
        ? found.map(choice)
        : [make("p", { class: "quiet" }, say("No model is like that."))]),
        ...(hub.service ? [make("p", { class: "quiet small" }, hub.service)] : []));
    };
    // Answers change the texts of the cards that stand there; only a filter by them changes which do.
    const fill = () => {
      if (filters.fits) { if (document.activeElement?.closest(".choice") == null) list(); return; }
      for (const node of box.querySelectorAll(".choice")) {
        const row = rows.find((one) => one.model === node.dataset.model);
        if (!row) continue;
        node.querySelector(".fits").replaceChildren(...METHODS.map(([key, label]) => pill(row, key, label)));
        studio.write(node.querySelector(".choice-verdict"), verdict(row));
      }
    };
    // What counts is what is free; where others hold a part of it, both are said.
    const memory = ({ memory: all, free }) => (free < 0.9 * all
      ? say("{free} of {bytes} free", { free: bytes(free), bytes: bytes(all) })
      : bytes(all));
    const told = () => studio.write(where, on
      ? say(trained ? "On {device}, {bytes}, for your {n} rows." : "On {device}, {bytes}.",
        { device: on.name, bytes: memory(on), n: number(trained) })
      : say("What each takes is being worked out…"));

    const done = (row, method, settings) => { dialog.close(); take(row.model, method, settings); };
    // A few models a question, those in sight first, so that the first cards are answered at once.
    const ask = async () => {
      const mine = (asked += 1);
      on = null; answers = {}; told(); fill();
      const left = rows.map((row) => row.model);
      while (left.length && mine === asked && dialog.open) {
        try {
          const found = await studio.ask("chooser", "fitting", {
            order: studio.order.value, lang: studio.language, name: card || undefined, ids: left.splice(0, 6)
          });
          if (mine !== asked) return;
          Object.assign(answers, found.answers);
          on = found.device; trained = found.rows;
          told(); fill();
        } catch (problem) {
          if (mine === asked) studio.write(where, studio.trouble(problem).message);
          return;
        }
      }
    };
    const searchHub = async () => {
      const text = search.value.trim();
      if (text.length < 3) { hub = { rows: [], service: null }; list(); return; }
      const found = await studio.ask("chooser", "hub", { search: text, lang: studio.language }).catch(() => null);
      if (found && text === search.value.trim()) { hub = { rows: found.rows || [], service: found.service }; list(); }
    };

    return async () => {
      frame([]); told(); list(); dialog.showModal(); search.focus();
      const found = await studio.ask("chooser", "listing", { lang: studio.language }).catch((problem) => {
        studio.write(where, studio.trouble(problem).message);
      });
      if (!found) return;
      rows = found.rows;
      const kept = search.value;
      card = [lookedAt(), card].find((name) => found.devices.includes(name)) || "";
      frame(found.devices); search.value = kept; search.focus(); list();
      ask();
    };
  };
})();
