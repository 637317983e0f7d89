// The order that the form, the YAML and the Data tab all work on: a plain object as in the YAML. Kept in this browser.
(() => {
  const studio = window.studio;
  const KEY = "studio-order";
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  let value = null;

  const tell = (from) => {
    studio.store(KEY, JSON.stringify(value));
    window.dispatchEvent(new CustomEvent("studio:order", { detail: { from } }));
  };

  // What a part of the page asks about the order, in the page's language.
  studio.question = (more = {}) => ({ order: value, lang: studio.language, ...more });
  studio.order = {
    get value() { return value; },
    // The order of a first visit, unless this browser kept one.
    begin(fallback) {
      try { value = JSON.parse(studio.stored(KEY)) || fallback; } catch { value = fallback; }
      if (typeof value !== "object" || !value.data) value = fallback;
      return value;
    },
    get(path) { return path.split(".").reduce((here, key) => (here == null ? undefined : here[key]), value); },
    // Set one key; a value equal to the default is left out of the order.
    set(path, wanted, fallback, from) {
      const keys = path.split("."), last = keys.pop();
      let here = value;
      for (const key of keys) {
        if (typeof here[key] !== "object" || here[key] == null)
          here[key] = key === "model" && typeof here[key] === "string" ? { source: here[key] } : {};
        here = here[key];
      }
      if (wanted === undefined || same(wanted, fallback)) delete here[last]; else here[last] = wanted;
      if (value.training && !Object.keys(value.training).length) delete value.training;
      tell(from);
    },
    replace(wanted, from) { value = wanted; tell(from); },
    model() { return typeof value.model === "object" && value.model ? value.model.source : value.model || "starter"; },
    method() { return typeof value.method === "object" && value.method ? value.method.name : value.method || "lora"; },
    stage() { return typeof value.stage === "object" && value.stage ? value.stage.name : value.stage || "sft"; },
    place() {
      return typeof value.place === "object" && value.place ? value.place.kind : (value.place || "here").split(":")[0];
    },
    train() {
      const train = value.data?.train;
      return Array.isArray(train) ? train.map((one) => one.source).join(" + ") : train || "";
    },
    // Choose a data set; what was decided about another one's problems and columns does not hold for it.
    use(source) {
      if (studio.order.train() === source) return;
      const { problems, mapping, format, ...rest } = value.data || {};
      value.data = { ...rest, train: source };
      tell("data");
    },
  };
})();
