// The settings behind the Advanced switch, in groups that are folded, and a search over all settings. Both show the
// fields of several sections, each under the name of its section.
(() => {
  const studio = window.studio, { element: make, say } = studio;
  const OPEN = "studio-groups"; // which groups are unfolded, kept in this browser

  // Fields under the names of their sections. sections: [{key, title, knobs}]; plain: of this one no name is shown.
  const blocks = (sections, plain) => sections.filter(({ knobs }) => knobs.length)
    .map(({ key, title, knobs }) => make("div", { class: "knob-block" },
      key !== plain && make("h4", { class: "knob-section" }, say(title)),
      make("div", { class: "fields" }, knobs.map((knob) => studio.field(knob, `${key}.${knob.key}`)))));
  const changed = (sections) => sections.reduce((sum, { key, knobs }) => sum + studio.changed(knobs, key), 0);
  const badge = (count) => make("span", { class: "count", hidden: !count,
    title: say("{n} advanced values changed", { n: count }) }, String(count));

  // The groups as a list of <details>. sections(): every section with all its knobs.
  studio.groups = (groups, sections) => {
    let open = [];
    try { open = JSON.parse(studio.stored(OPEN)) || []; } catch { /* an older page's */ }
    const keep = (name, isOpen) => {
      open = open.filter((one) => one !== name).concat(isOpen ? [name] : []);
      studio.store(OPEN, JSON.stringify(open));
    };
    return make("div", { class: "groups" }, groups.map(({ name, title }) => {
      const inside = sections().map((one) => ({ ...one, knobs: one.knobs.filter((knob) => knob.group === name) }));
      const count = badge(changed(inside));
      const names = inside.flatMap(({ knobs }) => knobs.map(studio.knobTitle));
      const box = make("details", { class: "group", open: open.includes(name) },
        make("summary", {}, make("b", {}, say(title)), count,
          make("span", { class: "quiet small group-names" }, names.join(say(", ")))),
        blocks(inside, "training"));
      box.addEventListener("toggle", () => keep(name, box.open));
      box.tell = () => { const now = changed(inside); count.hidden = !now; count.textContent = String(now); };
      return box;
    }));
  };

  // The fields whose title, key or help has every word of a text, in this language or in English.
  studio.soughtFields = (sections, text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (knob, key) => {
      const all = [knob.title, studio.knobTitle(knob), `${key}.${knob.key}`, knob.help, say(knob.help)].join(" ");
      return words.every((word) => all.toLowerCase().includes(word));
    };
    const found = sections.map((one) => ({ ...one, knobs: one.knobs.filter((knob) => has(knob, one.key)) }));
    return found.some(({ knobs }) => knobs.length)
      ? blocks(found)
      : [make("p", { class: "quiet" }, say("No setting is like that."))];
  };
})();
