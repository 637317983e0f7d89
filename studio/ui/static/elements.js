// What the page is made of: elements, buttons, tables, lists to choose from, frames in which something is said.
(() => {
  const studio = window.studio, { say } = studio;

  // element("p", {class: "quiet"}, "text", child…): text is set as text, never as HTML.
  const make = studio.element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    if (tag === "button") made.type = "button"; // nothing is sent by it, unless its attributes say so
    for (const [key, value] of Object.entries(attributes)) {
      if (value == null || value === false) continue;
      if (key === "job") { made.dataset.job = value; continue; }
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key in made && typeof value !== "string") made[key] = value;
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child != null && child !== false));
    if (made.dataset.job && !studio.may(made.dataset.job)) studio.forbid(made);
    return made;
  };

  // A button of a class: what it says, and what it does. more: its other attributes.
  const button = studio.button = (kind, text, act, more = {}) =>
    make("button", { class: kind, onclick: act, ...more }, text);

  // A refusal, {message, hint}, as it stands among a part's other lines.
  studio.fault = ({ message, hint }, tone = "fault") =>
    make("p", { class: tone, role: "alert" }, make("b", {}, message), " ", hint || "");

  // A table in a frame that scrolls sideways. heads: the columns' names, said here, or nodes. rows: <tr>, or lists of
  // the row's name and its numbers, each of which may be a <td> of its own. label: of a frame that takes the focus.
  studio.table = (heads, rows, { label, kind, frame = "", foot } = {}) => {
    const isCell = (one) => ["TD", "TH"].includes(one?.tagName);
    const line = ([name, ...cells]) => make("tr", {}, isCell(name) ? name : make("th", { scope: "row" }, name),
      cells.map((one) => (isCell(one) ? one : make("td", { class: "num" }, one))));
    return make("div", {
      class: `scroll ${frame}`, ...(label ? { tabindex: "0", role: "region", "aria-label": label } : {})
    }, make("table", { class: kind },
      make("thead", {}, make("tr", {}, heads.map((head) =>
        make("th", { scope: "col" }, typeof head === "string" ? say(head) : head)))),
      make("tbody", {}, rows.map((row) => (Array.isArray(row) ? line(row) : row))), foot));
  };

  // A list to choose from: [[value, what it says, its title]]. act(value): what is done when another one is chosen.
  studio.select = (options, value, act, more = {}) => {
    const made = make("select", { ...more, onchange: () => act(made.value) },
      options.map(([each, text, title]) => make("option", { value: each, title }, text)));
    made.value = value;
    return made;
  };

  // What is said in a frame of a tone (bad, warn, good, info): a title, a sentence, and what can be done.
  studio.callout = (tone, title, text, ...acts) => make("div",
    { class: `call ${tone}`, role: tone === "bad" ? "alert" : "status" },
    make("div", {}, make("b", {}, title), text ? make("p", {}, text) : null), ...acts);

  // How far a job is: what it does, how much of it is done, and a meter where that is known. counted: both in words.
  studio.progress = (doing, done, all, counted) => [
    make("p", { class: "doctor-now", role: "status" }, make("span", { class: "spinner" }),
      make("span", {}, doing || say("Starting…")), all ? make("span", { class: "quiet num" }, counted) : null),
    all
      ? make("span", { class: "row-meter doctor-meter", role: "img", "aria-label": counted },
        make("i", { style: `width:${(100 * done) / all}%` }))
      : null];
  studio.waiting = () => make("p", { class: "quiet" },
    say("A run that is ordered meanwhile waits. This page may be closed."));

  // The head of a dialogue over the page: its title, what it is for, and the way out.
  studio.dialogHead = (dialog, title, about) => make("div", { class: "chooser-head" },
    make("div", {}, make("h2", {}, title), about && make("p", { class: "quiet small" }, about)),
    button("plain", "✕", () => dialog.close(), { "aria-label": say("Close") }));

  // Whether every field that must be filled in is: the first that is not takes the focus, and its browser says so.
  studio.filled = (node) => [...node.querySelectorAll("input:required")].every((box) => box.reportValidity());

  // As element, for a picture in SVG.
  studio.svg = (tag, attributes = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.flat(Infinity).filter((child) => child != null));
    return made;
  };

  // A link to a run's page, by its id; name: what it shows, the id without its date where left out.
  studio.runLink = (id, name = studio.undated(id)) => make("a", {
    href: `?tab=runs&run=${encodeURIComponent(id)}`, "data-key": `run ${id}`,
    onclick: (event) => {
      if (event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      studio.open("runs", { run: id, compare: null });
    }
  }, name);
  studio.allRuns = () => make("a", {
    class: "back", href: "?tab=runs",
    onclick: (event) => { event.preventDefault(); studio.open("runs", { run: null, compare: null }); }
  }, `← ${say("All runs")}`);
})();
