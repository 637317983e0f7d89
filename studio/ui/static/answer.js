// One turn of a conversation: the question, one or two answers beside each other, votes, and what can be done with
// each.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const GOING = ["waiting", "loading", "writing"];
  const WINNER = { left: 0, right: 1 };

  const progress = (answer, server) => {
    if (answer.state === "waiting") return say("Waiting…");
    if (answer.state === "loading")
      return server?.doing ? `${studio.told(server.doing)}…` : say("Loading the model; this happens once…");
    return "";
  };
  const numbers = (answer) => {
    const usage = answer.usage;
    if (!usage) return answer.state === "stopped" ? say("stopped") : "";
    return [say("{n} tokens", { n: number(usage.tokens) }),
      usage.tokens_per_second ? say("{n} tokens/s", { n: number(usage.tokens_per_second, 1) }) : null,
      answer.finish === "length" ? say("cut at the longest answer") : null].filter(Boolean).join(" · ");
  };

  class Answer {
    constructor() {
      this.name = make("span", { class: "said-name" });
      this.thinking = make("details", { class: "said-thoughts", hidden: true }, make("summary", {}), make("div", {}));
      this.text = make("div", { class: "said-text" });
      this.foot = make("div", { class: "said-foot" });
      this.node = make("article", { class: "said" }, this.name, this.thinking, this.text, this.foot);
    }
    draw(answer, name, server, acts) {
      const key = JSON.stringify([answer, name, answer.state === "loading" ? server?.doing : null, studio.language,
        Boolean(window.markdownit)]);
      if (key === this.key) return;
      this.key = key;
      this.name.textContent = name;
      this.node.classList.toggle("going", GOING.includes(answer.state));
      this.node.setAttribute("aria-busy", String(GOING.includes(answer.state)));
      const { thoughts, text, open } = studio.thoughts(answer.text);
      this.thinking.hidden = !thoughts;
      this.thinking.firstChild.textContent = open && answer.state === "writing" ? say("Thinking…") : say("Thoughts");
      this.thinking.lastChild.textContent = thoughts;
      const waits = progress(answer, server);
      if (answer.error) {
        this.text.replaceChildren(...studio.markdown(text),
          studio.callout("bad", studio.told(answer.error.message), studio.told(answer.error.hint || ""), acts.again));
      } else if (waits) this.text.replaceChildren(make("p", { class: "quiet said-wait", role: "status" }, waits));
      else
        this.text.replaceChildren(...studio.markdown(text
          || (answer.state === "done" ? say("(an empty answer)") : "")));
      this.foot.replaceChildren(...[make("span", { class: "quiet num" }, numbers(answer)),
        make("span", { class: "grow" }), ...(GOING.includes(answer.state) ? [] : acts.each)].filter(Boolean));
    }
  }

  class Turn {
    constructor(place, chat) {
      this.place = place; this.chat = chat;
      this.prompt = make("div", { class: "asked" });
      this.pair = make("div", { class: "pair" });
      this.vote = make("div", { class: "vote" });
      this.node = make("section", { class: "turn" }, this.prompt, this.pair, this.vote);
      this.answers = [];
    }
    draw(turn, server) {
      const { chat, place } = this;
      if (this.said !== turn.prompt + studio.language) {
        this.said = turn.prompt + studio.language;
        this.prompt.replaceChildren(make("p", {}, turn.prompt), make("span", { class: "asked-acts" },
          button("icon", say("Edit"), () => chat.edit(place), { job: "chat_ask", title: say("Edit and ask again") }),
          button("icon", say("Again"), () => chat.retry(place), { job: "chat_ask", title: say("Ask again") })));
      }
      while (this.answers.length < turn.answers.length) {
        const made = new Answer();
        this.answers.push(made);
        this.pair.append(made.node);
      }
      while (this.answers.length > turn.answers.length) this.answers.pop().node.remove();
      this.pair.classList.toggle("two", turn.answers.length === 2);
      turn.answers.forEach((answer, side) => {
        const name = turn.hidden ? say("Answer {letter}", { letter: "AB"[side] }) : chat.nameOf(turn.sides[side]);
        const acts = { each: [
          button("icon", say("Copy"), () => studio.copy(answer.text)),
          button("icon", say("Keep"), () => chat.keep(place, side, answer),
            { job: "chat_keep", title: say("Keep as a training row, as it is or corrected") }),
          chat.taught(place, side)],
          again: button("button", answer.error?.where === "server" ? say("Restart and ask again") : say("Ask again"),
            () => chat.retry(place))
        };
        this.answers[side].draw(answer, name, server, acts);
        this.answers[side].node.classList.toggle("won", turn.vote in WINNER && WINNER[turn.vote] === side);
      });
      this.drawVote(turn);
    }
    drawVote(turn) {
      const done = turn.answers.every((answer) => !GOING.includes(answer.state));
      const key = JSON.stringify([turn.hidden, turn.vote, turn.rate, done, studio.language]);
      if (key === this.voted) return;
      this.voted = key;
      const cast = (choice, name) =>
        button("button", name, () => this.chat.vote(this.place, choice), { job: "chat_vote" });
      if (turn.hidden && done)
        this.vote.replaceChildren(make("span", { class: "quiet" }, say("Which one is better?")),
          cast("left", say("A is better")), cast("tie", say("Equally good")),
          cast("right", say("B is better")));
      else if (turn.rate?.rate != null) {
        const { name, rate, low, high, votes } = turn.rate, percent = (value) => number(100 * value);
        this.vote.replaceChildren(make("p", { class: "quiet" },
          say("{name} is preferred in {share} % of {n} votes (95 % interval: {low}–{high} %).",
            { name: this.chat.nameOf(name), share: percent(rate), n: votes, low: percent(low), high: percent(high) }),
          " ", button("plain", say("Make preference pairs of all votes"), () => this.chat.pairs(),
            { job: "chat_pairs",
              title: say("A data set of the better and the worse answers of all votes, to train with DPO.") })));
      } else this.vote.replaceChildren();
    }
  }
  studio.Turn = Turn;
})();
