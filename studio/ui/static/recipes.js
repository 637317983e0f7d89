// The recipe gallery: six complete orders with data of their own, each with what it takes on this computer.
(() => {
  const studio = window.studio, el = studio.element;

  // host: where in the page the dialogue lies. take(recipe): opens its order.
  studio.recipes = (host, take) => {
    const dialog = el("dialog", { class: "chooser recipes" });
    host.append(dialog);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

    const cost = (recipe) => [recipe.rows > 1 && studio.say("{n} rows", { n: studio.number(recipe.rows) }),
      recipe.seconds != null && `≈ ${studio.duration(recipe.seconds)}`,
      recipe.total != null && studio.bytes(recipe.total),
      recipe.fits === false && studio.say("does not fit here"),
      !recipe.local && studio.say("the model is downloaded at the start")].filter(Boolean).join(" · ");
    const card = (recipe) => el("article", { class: "choice", "data-recipe": recipe.name },
      el("h3", {}, studio.say(recipe.title)), el("p", {}, studio.say(recipe.about)),
      el("p", { class: "quiet small" }, studio.say(recipe.expect)),
      el("p", { class: "small num recipe-cost" }, el("span", { class: "quiet" }, studio.say("On this computer:")), " ",
        cost(recipe) || studio.say("not known yet")),
      el("button", { type: "button", class: "secondary", onclick: () => { dialog.close(); take(recipe); } },
        studio.say("Open it")));

    return async () => {
      const list = el("div", { class: "chooser-list" }, el("p", { class: "quiet" }, studio.say("One moment…")));
      dialog.setAttribute("aria-label", studio.say("Recipes"));
      dialog.replaceChildren(
        el("div", { class: "chooser-head" },
          el("div", {}, el("h2", {}, studio.say("Recipes")), el("p", { class: "quiet small" },
            studio.say("Complete orders with small data of their own. Open one, look at it, and start it; then put "
              + "your own data in its place."))),
          el("button", { type: "button", class: "plain", "aria-label": studio.say("Close"),
            onclick: () => dialog.close() },
            "✕")), list);
      dialog.showModal();
      try {
        const { recipes } = await studio.ask("tune", "recipes", { lang: studio.language }, 60000);
        list.replaceChildren(...recipes.map(card));
      } catch (problem) {
        list.replaceChildren(el("p", { class: "bad" }, studio.trouble(problem).message));
      }
    };
  };
})();
