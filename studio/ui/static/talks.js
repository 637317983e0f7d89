// The list of conversations: open one again, save it, delete it.
(() => {
  const studio = window.studio, { element: make, button, say } = studio;

  class Talks {
    constructor(chat) { this.chat = chat; this.node = make("nav", { class: "talks" }); }
    async draw() {
      const answer = await studio.ask("studio-chat", "talks", {}).catch(() => null);
      if (!answer) return;
      const key = JSON.stringify([answer.talks, this.chat.id, studio.language]);
      if (key === this.talked) return;
      this.talked = key;
      this.node.setAttribute("aria-label", say("Conversations"));
      this.node.replaceChildren(make("h3", {}, say("Conversations")),
        ...(answer.talks.length
          ? answer.talks.map((one) => make("div", { class: `talk ${one.id === this.chat.id ? "here" : ""}` },
            make("a", {
              href: `?tab=chat&talk=${one.id}`, "aria-current": one.id === this.chat.id ? "true" : null,
              onclick: (event) => { event.preventDefault(); studio.open("chat", { talk: one.id, model: null }); }
            }, one.title || say("untitled")),
            button("icon", "×", () => this.remove(one),
              { job: "chat_delete", "aria-label": say("Delete {name}", { name: one.title }), title: say("Delete") })))
            : [make("p", { class: "quiet" }, say("They are kept here, as they are written."))]),
        ...(answer.talks.length && this.chat.id
          ? [button("chip", say("Save this conversation"), () => this.save())]
          : []));
    }
    async remove(one) {
      if (!(await studio.inquire({
        title: say("Delete this conversation?"), text: one.title, act: say("Delete"), grave: true
      })))
        return;
      await studio.perform("chat_delete", one.id);
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
