// What a run was ordered to do, and the checkpoints it has.
(() => {
  const studio = window.studio, { element: make, button, say, number, bytes, date } = studio, live = studio.live;

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
            ? say("What was combined, and how.")
            : say("The order this run was started with. It repeats the run: python -m studio train ORDER.yaml")),
        make("span", { class: "grow" }),
        button("chip", say("Copy"), () => studio.copy(answer.order)),
        button("chip", say("Save"), () => studio.save(new Blob([answer.order], { type: "text/yaml" }), `${id}.yaml`)),
        answer.plain?.combine ? null : button("button", say("Use as a new order"), () => studio.reuse(id))),
        ...(answer.dashboard ? [this.dashboard(answer)] : []), text);
      this.draw();
    }
    dashboard(answer) {
      return make("div", { class: "order-tools" },
        make("p", { class: "quiet" },
          say("The curves are in {trackers} as well. In a terminal of this computer:",
            { trackers: answer.plain.training.report_to.join(", ") }), " ", make("code", {}, answer.dashboard)),
        make("span", { class: "grow" }),
        button("chip", say("Copy the command"), () => studio.copy(answer.dashboard)));
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
        panel.replaceChildren(make("div", { class: "empty" }, make("h3", {}, say("No checkpoints")),
          make("p", {},
            say("A checkpoint is written now and then while the run trains. A resume goes on from the newest "
              + "complete one."))));
        return;
      }
      panel.replaceChildren(studio.table(["Step", "Written", "Size", "Complete"], known.map((one) => [
        make("th", { scope: "row", class: "num" }, number(one.step)), date(one.at), bytes(one.bytes),
        one.faults.length
          ? make("span", { class: "state state-failed" }, one.faults.join("; "))
          : make("span", { class: "state state-finished" }, say("complete"))])));
    }
  }
  studio.ordered = () => new Ordered();
})();
