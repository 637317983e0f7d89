// The list of conversations: open one again, save it, delete it.
(() => {
  const studio = window.studio, make = studio.element;

  class Talks {
    constructor(chat) { this.chat = chat; this.node = make("nav", { class: "talks" }); }
    async draw() {
      const answer = await studio.ask("studio-chat", "talks", {}).catch(() => null);
      if (!answer) return;
      const key = JSON.stringify([answer.talks, this.chat.id, studio.language]);
      if (key === this.talked) return;
      this.talked = key;
      this.node.setAttribute("aria-label", studio.say("Conversations"));
      this.node.replaceChildren(make("h3", {}, studio.say("Conversations")),
        ...(answer.talks.length
          ? answer.talks.map((one) => make("div", { class: `talk ${one.id === this.chat.id ? "here" : ""}` },
            make("a", {
              href: `?tab=chat&talk=${one.id}`, "aria-current": one.id === this.chat.id ? "true" : null,
              onclick: (event) => { event.preventDefault(); studio.open("chat", { talk: one.id, model: null }); }
            }, one.title || studio.say("untitled")),
            make("button", {
              type: "button", job: "chat_delete", class: "icon",
              "aria-label": studio.say("Delete {name}", { name: one.title }), title: studio.say("Delete"),
              onclick: () => this.remove(one)
            }, "×")))
            : [make("p", { class: "quiet" }, studio.say("They are kept here, as they are written."))]),
      ...(answer.talks.length && this.chat.id
        ? [make("button", { type: "button", class: "chip", onclick: () => this.save() },
          studio.say("Save this conversation"))]
        : []));
    }
    async remove(one) {
      if (!(await studio.inquire({
        title: studio.say("Delete this conversation?"), text: one.title, act: studio.say("Delete"), grave: true
      })))
        return;
      try { await studio.call("chat_delete", one.id); } catch (problem) { studio.tell(problem); }
      if (one.id === this.chat.id) this.chat.fresh(false); else this.draw();
    }
    async save() {
      const answer = await studio.ask("studio-chat", "said", { id: this.chat.id }).catch(() => null);
      if (answer)
        studio.save(new Blob([JSON.stringify(answer, null, 1)], { type: "application/json" }), `${this.chat.id}.json`);
    }
  }
  studio.Talks = Talks;
})();
