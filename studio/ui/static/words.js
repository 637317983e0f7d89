// What the page says. English is the key; window.studioWords holds the other languages (studio/ui/words.py).
(() => {
  const studio = (window.studio = window.studio || {});
  studio.parts = studio.parts || {};
  const known = window.studioWords || {}, [singular, one, verbs] = window.studioOne || [{}, "$^", {}];

  const stored = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const store = (key, value) => {
    try { localStorage.setItem(key, value); } catch { /* private mode: lasts as long as the page */ }
  };
  studio.stored = stored;
  studio.store = store;

  const wish = new URLSearchParams(location.search).get("lang") || stored("studio-language") || navigator.language
    || "en";
  const start = wish.toLowerCase().split(/[-_]/)[0];
  studio.language = known[start] ? start : "en";

  // An English sentence about {n} things, of one: its own where there is one, else without the plural's s.
  const ofOne = (text) => (Object.hasOwn(singular, text)
    ? singular[text]
    : text.replace(/(\{n\} (?!of )(?:[a-z]+ )??[a-z]+)s\b/, "$1"));
  const counted = new RegExp(one, "g");
  // A sentence of the core, its values in it, with the singular after each 1 that counts something.
  studio.ofOne = (sentence) => sentence.replace(counted,
    (_, noun, other, verb) => `1 ${noun || other}${verb ? ` ${verbs[verb]}` : ""}`);
  // say("{n} rows", {n: 3}): the text in the page's language, with its values; of one thing in the singular.
  studio.say = (text, values) => {
    const table = known[studio.language] || {};
    const said = values && String(values.n) === "1" && studio.language === "en"
      ? ofOne(text)
      : Object.hasOwn(table, text) ? table[text] : text;
    return values ? said.replace(/\{(\w+)\}/g, (slot, name) => (name in values ? values[name] : slot)) : said;
  };

  const locale = () => (studio.language === "zh" ? "zh-CN" : "en");
  studio.number = (value, digits = 0) => value == null || Number.isNaN(value) ? "–"
    : new Intl.NumberFormat(locale(), { maximumFractionDigits: digits, minimumFractionDigits: 0 }).format(value);
  studio.date = (seconds) => new Intl.DateTimeFormat(locale(),
    { dateStyle: "medium", timeStyle: "short" }).format(new Date(seconds * 1000));
  studio.bytes = (value) => {
    if (value == null || Number.isNaN(value)) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"]; // as nvidia-smi counts: a card of 24 GB has 24 GiB
    let place = 0;
    while (Math.abs(value) >= 999.5 && place < 4) { value /= 1024; place += 1; }
    return `${studio.number(value, value < 10 && place > 1 ? 1 : 0)} ${units[place]}`;
  };
  studio.duration = (seconds) => {
    if (seconds == null || !Number.isFinite(seconds)) return "–";
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return studio.say("{s} s", { s });
    if (s < 600 && s % 60)
      return studio.say("{m}:{s} min", { m: Math.floor(s / 60), s: String(s % 60).padStart(2, "0") });
    if (s < 3600) return studio.say("{m} min", { m: Math.round(s / 60) });
    const minutes = Math.round(s / 60);
    return studio.say("{h} h {m} min", { h: Math.floor(minutes / 60), m: minutes % 60 });
  };

  // Static text in HTML: <b data-say="Data"></b>, and data-say-label, -title, -placeholder for the attributes.
  const ATTRIBUTES = {
    "data-say-label": "aria-label", "data-say-title": "title", "data-say-placeholder": "placeholder"
  };
  studio.translate = (root = document) => {
    for (const node of root.querySelectorAll("[data-say]"))
      node.textContent = studio.say(node.getAttribute("data-say"));
    for (const [mark, attribute] of Object.entries(ATTRIBUTES)) {
      for (const node of root.querySelectorAll(`[${mark}]`))
        node.setAttribute(attribute, studio.say(node.getAttribute(mark)));
    }
  };

  // Parts that draw themselves listen to "studio:language" on window and draw again.
  studio.speak = (language) => {
    if (!known[language]) return;
    studio.language = language;
    store("studio-language", language);
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    studio.translate();
    window.dispatchEvent(new CustomEvent("studio:language", { detail: language }));
  };
})();
