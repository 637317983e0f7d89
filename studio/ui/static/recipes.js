// The recipe gallery: six complete orders with data of their own, each with what it takes on this computer.
(() => {
  const studio = window.studio, make = studio.element;

  // host: where in the page the dialogue lies. take(recipe): opens its order.
  studio.recipes = (host, take) => {
    const dialog = make("dialog", { class: "chooser recipes" });
    host.append(dialog);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

    const cost = (recipe) => [recipe.rows > 1 && studio.say("{n} rows", { n: studio.number(recipe.rows) }),
      recipe.seconds != null && `≈ ${studio.duration(recipe.seconds)}`,
      recipe.total != null && studio.bytes(recipe.total),
      recipe.fits === false && studio.say("does not fit here"),
      !recipe.local && studio.say("the model is downloaded at the start")].filter(Boolean).join(" · ");
    const card = (recipe) => make("article", { class: "choice", "data-recipe": recipe.name },
      make("h3", {}, studio.say(recipe.title)), make("p", {}, studio.say(recipe.about)),
      make("p", { class: "quiet small" }, studio.say(recipe.expect)),
      make("p", { class: "small num recipe-cost" }, make("span", { class: "quiet" }, studio.say("On this computer:")),
        " ",
        cost(recipe) || studio.say("not known yet")),
      make("button", { type: "button", class: "secondary", onclick: () => { dialog.close(); take(recipe); } },
        studio.say("Open it")));

    return async () => {
      const list = make("div", { class: "chooser-list" }, make("p", { class: "quiet" }, studio.say("One moment…")));
      dialog.setAttribute("aria-label", studio.say("Recipes"));
      dialog.replaceChildren(
        make("div", { class: "chooser-head" },
          make("div", {}, make("h2", {}, studio.say("Recipes")), make("p", { class: "quiet small" },
            studio.say("Complete orders with small data of their own. Open one, look at it, and start it; then put "
              + "your own data in its place."))),
          make("button", { type: "button", class: "plain", "aria-label": studio.say("Close"),
            onclick: () => dialog.close() },
            "✕")), list);
      dialog.showModal();
      try {
        const { recipes } = await studio.ask("tune", "recipes", { lang: studio.language }, 60000);
        list.replaceChildren(...recipes.map(card));
      } catch (problem) {
        list.replaceChildren(make("p", { class: "bad" }, studio.trouble(problem).message));
      }
    };
  };
})();
