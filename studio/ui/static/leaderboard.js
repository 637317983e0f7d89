// The leaderboard of the runs on one data set: gain, forgetting, memory, time, size; the runs that none beats are
// marked.
(() => {
  const studio = window.studio, { element: make, say, number, bytes, duration } = studio;

  studio.leaderboard = () => {
    const node = make("section", { class: "card leaderboard", hidden: true });
    let wanted = null, seen = null, mark = null;
    const figure = (value, digits = 3) => (value == null ? "–" : number(value, digits));
    const KEPT = { kept: "kept", slightly: "slightly forgotten", badly: "badly forgotten" };
    const line = (one) => make("tr", { class: one.front ? "front" : "" },
      make("td", {}, studio.runLink(one.run, one.name),
        one.front ? make("span", { class: "chip-mark" }, say("beaten by none")) : null),
      make("td", {}, studio.methodLabel(one.method)),
      make("td", { class: "num" }, one.gain > 0 ? "+" : "", figure(one.gain)),
      make("td", { class: "num" }, one.score == null ? "–" : `${number(100 * one.score)} %`,
        one.metric ? make("small", { class: "quiet" }, studio.metricName(one.metric)) : null),
      make("td", { class: "num" }, figure(one.forgetting),
        one.kept ? make("small", { class: "quiet" }, say(KEPT[one.kept] || one.kept)) : null),
      make("td", { class: "num" }, bytes(one.memory)),
      make("td", { class: "num" }, duration(one.seconds)),
      make("td", { class: "num" }, bytes(one.size)));
    const draw = () => {
      node.hidden = !seen?.groups?.length;
      if (node.hidden) return;
      const short = (name) => name.split("/").pop();
      const pick = studio.select(seen.groups.map((one) =>
        [one.data, say("{name} ({n} runs)", { name: short(one.name), n: one.runs })]), seen.data,
        (data) => { wanted = data; look(); }, { class: "field", "aria-label": say("Data set") });
      const names = ["Run", "Method", "Gain", "Score", "Forgetting (KL)", "Memory", "Time", "Size"];
      node.replaceChildren(
        make("div", { class: "leaderboard-head" }, make("h3", { "aria-level": "2" }, say("Which run is best?")), pick),
        make("p", { class: "quiet small" },
          say("Gain is the fall of the held-out loss. A run is beaten by none where no other one is at least as "
            + "good in every column and better in one.")),
        studio.table(names, seen.rows.map(line), { label: say("Leaderboard") }));
    };
    const look = async () => {
      const answer = await studio.ask("studio-bar", "leaders", wanted ? { kind: wanted } : {}).catch(() => null);
      if (answer) { seen = answer; draw(); }
    };
    return {
      node,
      // Asked again only where a run has ended or gone since.
      draw() {
        const now = JSON.stringify(studio.live.rows.filter((row) => row.saved).map((row) => [row.id, row.name]));
        if (now === mark) return;
        mark = now;
        look();
      },
      speak() { draw(); },
    };
  };
})();
