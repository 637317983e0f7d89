// The recipe gallery: six complete orders with data of their own, each with what it takes on this computer.
(() => {
  const studio = window.studio, { element: make, button, say, number, bytes, duration } = studio;

  // host: where in the page the dialogue lies. take(recipe): opens its order.
  studio.recipes = (host, take) => {
    const dialog = make("dialog", { class: "chooser recipes" });
    host.append(dialog);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

    const cost = (recipe) => [recipe.rows > 1 && say("{n} rows", { n: number(recipe.rows) }),
      recipe.seconds != null && `≈ ${duration(recipe.seconds)}`,
      recipe.total != null && bytes(recipe.total),
      recipe.fits === false && say("does not fit here"),
      !recipe.local && say("the model is downloaded at the start")].filter(Boolean).join(" · ");
    const card = (recipe) => make("article", { class: "choice", "data-recipe": recipe.name },
      make("h3", {}, say(recipe.title)), make("p", {}, say(recipe.about)),
      make("p", { class: "quiet small" }, say(recipe.expect)),
      make("p", { class: "small num recipe-cost" }, make("span", { class: "quiet" }, say("On this computer:")),
        " ",
        cost(recipe) || say("not known yet")),
      button("secondary", say("Open it"), () => { dialog.close(); take(recipe); }));

    return async () => {
      const list = make("div", { class: "chooser-list" }, make("p", { class: "quiet" }, say("One moment…")));
      dialog.setAttribute("aria-label", say("Recipes"));
      dialog.replaceChildren(studio.dialogHead(dialog, say("Recipes"),
        say("Complete orders with small data of their own. Open one, look at it, and start it; then put your own data "
          + "in its place.")), list);
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
