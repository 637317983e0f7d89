// The frame of the page: which tab is open, dark or light, the header. Tabs are plain columns; CSS shows the open one.
(() => {
  const studio = window.studio;
  const TABS = ["data", "tune", "runs", "chat"];
  const root = document.documentElement;

  studio.tab = () => root.dataset.tab;

  // Open a tab; changes go into the address: studio.open("runs", {run: id}). Listeners: "studio:tab" on window.
  studio.open = (tab, changes = {}, replace = false) => {
    const address = new URL(location.href);
    address.searchParams.set("tab", tab);
    for (const [key, value] of Object.entries(changes)) {
      if (value == null) address.searchParams.delete(key); else address.searchParams.set(key, value);
    }
    history[replace ? "replaceState" : "pushState"](history.state, "", address);
    show();
  };

  const show = () => {
    const query = new URLSearchParams(location.search);
    const wanted = query.get("tab") || (query.get("run") ? "runs" : "tune");
    const before = root.dataset.tab;
    root.dataset.tab = TABS.includes(wanted) ? wanted : "tune";
    for (const link of document.querySelectorAll(".studio-nav a")) {
      if (link.dataset.tab === root.dataset.tab)
        link.setAttribute("aria-current", "page");
      else
        link.removeAttribute("aria-current");
    }
    if (before && before !== root.dataset.tab) window.scrollTo({ top: 0 });
    window.dispatchEvent(new CustomEvent("studio:tab", { detail: root.dataset.tab }));
  };
  window.addEventListener("popstate", show);

  const dark = () => document.body.classList.contains("dark");
  const shade = (wanted) => {
    document.body.classList.toggle("dark", wanted);
    root.style.colorScheme = wanted ? "dark" : "light";
    window.dispatchEvent(new CustomEvent("studio:shade", { detail: wanted ? "dark" : "light" }));
  };

  // Calls an event of the page that changes something (a gr.api of studio/ui/jobs.py). Rejects with {message, hint,
  // where}.
  studio.call = async (name, ...data) => {
    const base = (window.gradio_config?.root || "").replace(/\/$/, "");
    const prefix = window.gradio_config?.api_prefix ?? "/gradio_api";
    let answer;
    try {
      answer = await fetch(`${base}${prefix}/run/${name}`,
        { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ data }) });
    } catch {
      throw studio.trouble({ status: 0 });
    }
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw refusal(answer.status, body);
    return body.data[0];
  };
  // The same; a refusal is told at the foot of the page, and nothing comes back.
  studio.perform = (name, ...data) => studio.call(name, ...data).catch((problem) => studio.tell(problem));
  const refusal = (status, body) => {
    if (status === 401)
      return { message: studio.say("You are no longer logged in."), hint: studio.say("Load the page again.") };
    if (status === 403)
      return { message: studio.say("Only the owner may do this here."), hint: studio.say("Log in as the owner.") };
    const [message, ...hint] = typeof body.error === "string" ? body.error.split("\n") : [""];
    return {
      message: studio.told(message) || studio.say("The studio answered with {status}.", { status }),
      hint: studio.told(hint.join(" "))
    };
  };

  // Gradio's upload(file) -> {path}, which tells a refusal as "HTTP 507: …". Rejects as studio.call does.
  studio.sending = (upload) => async (file) => {
    try {
      return await upload(file);
    } catch (error) {
      const [, status, text] = String(error?.message || "").match(/^HTTP (\d+): (.*)$/s) || [];
      throw status ? refusal(Number(status), { error: text }) : studio.trouble({ status: 0 });
    }
  };

  // Which jobs this visitor may call, as the server says with every answer ("*": all). What an element with {job: name}
  // would do is greyed where the server would refuse it.
  let allowed = null;
  studio.may = (job) => allowed == null || allowed.includes("*") || allowed.includes(job);
  studio.permit = (list) => {
    if (list != null && list !== allowed?.join(" ")) {
      allowed = list.split(" ");
      for (const node of document.querySelectorAll("[data-job]")) if (!studio.may(node.dataset.job)) forbid(node);
      window.dispatchEvent(new CustomEvent("studio:permit"));
    }
    door(); // gradio may have drawn it only now
  };
  // Gradio's login button of a Space, in the page's language: who is let in as the owner is offered the way out.
  const door = () => {
    const link = document.getElementById("studio-login");
    if (!link) return;
    const inside = allowed?.includes("*");
    if (inside) link.href = "/logout?_target_url=/";
    studio.write(link, studio.say(inside ? "Log out" : "Sign in with Hugging Face"));
  };
  window.addEventListener("studio:language", door);
  const forbid = studio.forbid = (node) =>
    Object.assign(node, { disabled: true, title: studio.say("Only the owner may do this here.") });

  studio.undated = (id) => id.replace(/^\d{4}-\d\d-\d\d-\d{4}-/, "");

  studio.copy = (text) => navigator.clipboard?.writeText(text)
    .then(() => studio.tell({ message: studio.say("Copied.") }, "good"));

  // Whether a run in this state has processes of its own.
  studio.isAlive = (state) => ["starting", "running", "stopping"].includes(state);

  // Sets a text only where it is another: the same text again would be laid out and painted again.
  studio.write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  studio.parts.header = (element) => {
    const toggle = element.querySelector(".studio-shade"), tongue = element.querySelector(".studio-tongue");
    for (const link of element.querySelectorAll("a[data-tab]")) {
      link.addEventListener("click", (event) => {
        if (!event.metaKey && !event.ctrlKey) { event.preventDefault(); studio.open(link.dataset.tab); }
      });
    }
    const kept = studio.stored("studio-shade") || (new URLSearchParams(location.search).get("__theme"));
    shade(kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
    element.querySelector(".skip").addEventListener("click", () => {
      const part = document.querySelector(`#tab-${studio.tab()}`);
      (part.querySelector(".start .primary:not(:disabled)")
        || part.querySelector("a[href], button:not(:disabled), input, select, textarea"))?.focus();
    });
    toggle.addEventListener("click", () => {
      shade(!dark());
      studio.store("studio-shade", dark() ? "dark" : "light");
    });
    const label = () => {
      tongue.textContent = studio.language === "zh" ? "English" : "中文";
      tongue.lang = studio.language === "zh" ? "en" : "zh-CN";
    };
    tongue.addEventListener("click", () => { studio.speak(studio.language === "zh" ? "en" : "zh"); label(); });
    root.lang = studio.language === "zh" ? "zh-CN" : "en";
    studio.translate();
    label();
    show();
  };
})();
