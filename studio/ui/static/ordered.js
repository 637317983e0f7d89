// What a run was ordered to do, and the checkpoints it has.
(() => {
  const studio = window.studio, make = studio.element, live = studio.live;

  class Ordered {
    constructor() { this.order = make("div", { class: "card" }); this.checkpoints = make("div", { class: "card" }); }
    open(id) {
      Object.assign(this, { id, ordered: null, fetched: null });
      this.order.replaceChildren();
      this.checkpoints.replaceChildren();
    }
    async fetch() {
      const id = this.id, answer = await studio.ask("studio-bar", "order", { id }).catch(() => null);
      if (!answer || id !== this.id) return;
      this.ordered = answer;
      const text = make("pre", { class: "order", tabindex: "0" }, answer.order || answer.error);
      this.order.replaceChildren(make("div", { class: "order-tools" },
        make("p", { class: "quiet" },
          answer.plain?.combine
            ? studio.say("What was combined, and how.")
            : studio.say("The order this run was started with. It repeats the run: python -m studio train ORDER.yaml")),
        make("span", { class: "grow" }),
        make("button", {
          type: "button", class: "chip",
          onclick: () => studio.copy(answer.order)
        }, studio.say("Copy")),
        make("button", {
          type: "button", class: "chip",
          onclick: () => studio.save(new Blob([answer.order], { type: "text/yaml" }), `${id}.yaml`)
        }, studio.say("Save")),
        answer.plain?.combine
          ? null
          : make("button", { type: "button", class: "button", onclick: () => studio.reuse(id) },
            studio.say("Use as a new order"))),
        ...(answer.dashboard ? [this.dashboard(answer)] : []), text);
      this.draw();
    }
    dashboard(answer) {
      return make("div", { class: "order-tools" },
        make("p", { class: "quiet" },
          studio.say("The curves are in {trackers} as well. In a terminal of this computer:",
            { trackers: answer.plain.training.report_to.join(", ") }), " ", make("code", {}, answer.dashboard)),
        make("span", { class: "grow" }),
        make("button", {
          type: "button", class: "chip",
          onclick: () => studio.copy(answer.dashboard)
        }, studio.say("Copy the command")));
    }
    draw() {
      const panel = this.checkpoints;
      const known = this.ordered?.checkpoints || [];
      const steps = live.track(this.id).checkpoints || [];
      if (steps.length && steps.join() !== known.map((one) => one.step).join() && this.fetched !== steps.join()) {
        this.fetched = steps.join();
        this.fetch();
        return;
      }
      if (!known.length) {
        panel.replaceChildren(make("div", { class: "empty" }, make("h3", {}, studio.say("No checkpoints")),
          make("p", {},
            studio.say("A checkpoint is written now and then while the run trains. A resume goes on from the newest "
              + "complete one."))));
        return;
      }
      panel.replaceChildren(make("table", { class: "simple" },
        make("thead", {},
          make("tr", {},
            ["Step", "Written", "Size", "Complete"].map((name) => make("th", { scope: "col" }, studio.say(name))))),
        make("tbody", {},
          known.map((one) => make("tr", {}, make("th", { scope: "row", class: "num" }, studio.number(one.step)),
            make("td", {}, studio.date(one.at)), make("td", { class: "num" }, studio.bytes(one.bytes)),
            make("td", {},
              one.faults.length
                ? make("span", { class: "state state-failed" }, one.faults.join("; "))
                : make("span", { class: "state state-finished" }, studio.say("complete"))))))));
    }
  }
  studio.ordered = () => new Ordered();
})();
